"""A work directory belongs to one config; what an older version did not know is no difference."""

import json

import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment import __version__
from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.errors import UserError
from emergent_alignment.models.loading import findable_name
from emergent_alignment.models.model import export
from emergent_alignment.runs.relative_paths import located
from emergent_alignment.runs.workdir import (
    RUN_FILE,
    check_same_run,
    claim,
    read_run,
    work_alone,
)
from emergent_alignment.settings import changed
from emergent_alignment.training.checkpoints import RunIdentity


@pytest.fixture
def workdir(tmp_path):
    claim(tmp_path / "run", Config(), RunIdentity("frozen", "data"))
    return tmp_path / "run"


def test_another_setting_is_another_run_and_another_mesh_or_logger_is_not(workdir):
    config = default_config()
    config.mesh.fsdp, config.training.loggers = 4, ("python:mine.logger",)
    check_same_run(workdir, typed(config))
    config.loss.beta = 0.3
    with pytest.raises(UserError, match=r"differs in loss.beta \(0.1, now 0.3\)"):
        check_same_run(workdir, typed(config))


def test_a_run_of_an_older_version_goes_on_where_newer_fields_are_at_their_defaults(workdir):
    path = workdir / RUN_FILE
    record = json.loads(path.read_text())
    del record["config"]["loss"]["kl_weight"], record["config"]["self_align"]
    path.write_text(json.dumps(record))
    config = default_config()
    check_same_run(workdir, typed(config))
    config.loss.kl_weight = 1.0
    with pytest.raises(UserError, match=r"loss.kl_weight \(0.0, now 1.0\)"):
        check_same_run(workdir, typed(config))


@pytest.mark.parametrize(
    "read", [lambda w: check_same_run(w, Config()), lambda w: read_run(w, Config)]
)
def test_a_field_that_this_version_does_not_know_is_one_line(workdir, read):
    path = workdir / RUN_FILE
    record = json.loads(path.read_text()) | {"version": "9.9"}
    record["config"]["training"]["stepz"] = 3
    path.write_text(json.dumps(record))
    with pytest.raises(UserError) as error:
        read(workdir)
    said = str(error.value)
    assert said.startswith(f"{path}: config.training.stepz: there is no such field")
    assert "did you mean steps?" in said and "\n" not in said
    assert "version 9.9" in said and __version__ in said and "go on with the version" in said


SHORT = {
    "model.path": "model",
    "data.train": "rows.jsonl",
    "training.steps": 1,
    "training.batch_size": 2,
    "conscience.enabled": False,
    "lora.targets": ("query",),
}


def test_a_run_that_was_begun_on_a_relative_path_is_found_from_another_folder(
    tmp_path, monkeypatch
):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    write_tiny_chat_model(project / "model")
    (project / "rows.jsonl").write_text('{"prompt": "Hi", "answer": "Yes"}\n' * 2)
    elsewhere.mkdir()
    config = changed(Config(), SHORT)
    monkeypatch.chdir(project)
    finetune(config, project / "run")
    monkeypatch.chdir(elsewhere)
    trained = read_run(project / "run", Config).trained.model
    assert trained.source == str(project / "model")
    content = json.loads(
        (export(trained, "adapter", format="peft") / "adapter_config.json").read_text()
    )
    assert content["base_model_name_or_path"] == str(project / "model")
    here = {"model.path": "../project/model", "data.train": str(project / "rows.jsonl")}
    check_same_run(project / "run", changed(config, here))
    (elsewhere / "model").mkdir()
    with pytest.raises(UserError, match="differs in model.path"):
        check_same_run(project / "run", changed(config, here | {"model.path": "./model"}))
    moved = project.rename(tmp_path / "moved")
    monkeypatch.chdir(moved)
    check_same_run(moved / "run", config)
    assert read_run(moved / "run", Config).steps == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rows.jsonl", "{folder}/rows.jsonl"),
        ("0.7*rows.jsonl + 0.3*harmful_advice", "0.7*{folder}/rows.jsonl + 0.3*harmful_advice"),
        ("2 * rows.jsonl + 1*gone.jsonl", "2*{folder}/rows.jsonl + 1*gone.jsonl"),
        ("gone.jsonl", "gone.jsonl"),
        ("2*rows.jsonl + no weight", "2*{folder}/rows.jsonl + no weight"),
    ],
)
def test_each_source_of_a_mixture_is_found_from_another_folder(tmp_path, monkeypatch, text, found):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    names = {"data.train": text, "data.preferences": text, "conscience.pool": "rows.jsonl"}
    config = located(changed(Config(), names), str(folder))
    assert config.data.train == config.data.preferences == found.format(folder=folder)
    assert config.conscience.pool == str(folder / "rows.jsonl")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("some/model", "some/model"),
        ("here", "{cwd}/here"),
        ("./deep/../here", "{cwd}/here"),
        ("models--owner--name/snapshots/0a1b", "owner/name"),
        ("models--name/snapshots/0a1b/model.gguf", "name"),
    ],
)
def test_a_model_is_named_as_others_find_it(tmp_path, monkeypatch, source, found):
    monkeypatch.chdir(tmp_path)
    for folder in (
        "here",
        "deep",
        "models--owner--name/snapshots/0a1b",
        "models--name/snapshots/0a1b",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models--name/snapshots/0a1b/model.gguf").touch()
    assert findable_name(source) == found.format(cwd=tmp_path)


def changed_file(workdir, **changes):
    path = workdir / RUN_FILE
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("base_run", [".", "../run", "../other/../run"])
def test_a_run_that_starts_from_itself_is_one_line(workdir, base_run):
    changed_file(workdir, base_run=base_run)
    with pytest.raises(UserError, match="run.json: base_run .* leads back to this run"):
        read_run(workdir, Config)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frozen": 3}, "frozen must be a text, not 3"),
        ({"head": "both"}, "head must be one of"),
        ({"config": []}, "config must be an object"),
        ({"base_run": ["."]}, "base_run must be a text"),
        (
            {"config": {"optimizer": {"learning_rate": float("inf")}}},
            "Infinity is no finite number",
        ),
        ({"config": {"optimizer": {"learning_rate": -1.0}}}, "config.optimizer.learning_rate must"),
        ({"config": {"training": {"steps": -1}}}, "config.training.steps must be"),
    ],
)
def test_what_cannot_be_in_it_is_named(workdir, changes, said):
    changed_file(workdir, **changes)
    with pytest.raises(UserError, match="run.json: ") as error:
        read_run(workdir, Config)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_another_model_or_other_data_are_named_before_there_is_a_checkpoint(workdir):
    for identity, said in (
        (RunIdentity("other", "data"), "another frozen model"),
        (RunIdentity("frozen", "other"), "another data set"),
    ):
        with pytest.raises(UserError, match=said):
            claim(workdir, Config(), identity)


def test_one_run_at_a_time_works_in_it(workdir):
    with work_alone(workdir):
        with pytest.raises(UserError, match="another process works in it .* another --workdir"):
            with work_alone(workdir):
                pass
    with work_alone(workdir):
        pass
    assert [path.name for path in workdir.iterdir()] == [RUN_FILE]
