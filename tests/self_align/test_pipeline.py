"""Stages run once, in order, in folders of their own; whatever changes upstream is noticed."""

import json

import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError
from emergent_alignment.runs.from_config import load_model
from emergent_alignment.self_align import pipeline
from emergent_alignment.self_align.pipeline import parse_stages, self_align
from emergent_alignment.self_align.stages import StageResult, stage_folder
from emergent_alignment.self_align.work_directory import STAGES
from emergent_alignment.settings import changed


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path_factory.mktemp("model")))
    return load_model(typed(config))


@pytest.fixture
def worked(monkeypatch):
    """The numbers of the stages that have worked; each writes its number and its inputs' rows."""
    worked, real = [], pipeline._of_stage

    def of_stage(number, function):
        def run(stage):
            worked.append(number)
            before = [row for folder in stage.inputs.values() for row in folder.rows()]
            stage.folder.write_rows([*before, {"stage": number}])
            return StageResult({"made": len(before) + 1})

        if function == "FILES":
            return real(number, function)
        return run if function == "run" else lambda config: None

    monkeypatch.setattr(pipeline, "_of_stage", of_stage)
    return worked


def test_each_stage_works_once_and_reads_the_earlier_ones(setup, worked, tmp_path):
    for _ in range(2):
        self_align(setup.config, tmp_path, setup=setup)
    assert worked == [1, 2, 3, 4]
    rows = stage_folder(tmp_path, 3).rows()
    assert rows == [{"stage": 1}, {"stage": 1}, {"stage": 2}, {"stage": 3}]
    assert stage_folder(tmp_path, 3).manifest()["counts"] == {"made": 4}


def test_a_stage_needs_the_earlier_ones_finished(setup, worked, tmp_path):
    self_align(setup.config, tmp_path, [1], setup=setup)
    with pytest.raises(UserError, match="2_answers: this stage is not finished"):
        self_align(setup.config, tmp_path, [3], setup=setup)
    self_align(setup.config, tmp_path, [2], setup=setup)
    (stage_folder(tmp_path, 2).path / "manifest.json").unlink()
    with pytest.raises(UserError, match="2_answers: this stage is not finished"):
        self_align(setup.config, tmp_path, [3], setup=setup)
    assert worked == [1, 2]


def test_changed_settings_upstream_are_named_before_any_work(setup, worked, tmp_path):
    self_align(setup.config, tmp_path, [1, 2], setup=setup)
    with pytest.raises(UserError, match="1_instructions: made with other settings.*seed was 0"):
        self_align(changed(setup.config, {"seed": 5}), tmp_path, [3], setup=setup)
    with pytest.raises(UserError, match="2_answers.*settings.sampling.top_p was 1.0, and is 0.5"):
        self_align(changed(setup.config, {"sampling.top_p": 0.5}), tmp_path, setup=setup)
    self_align(changed(setup.config, {"training.steps": 7}), tmp_path, setup=setup)
    assert worked == [1, 2, 3, 4]


def test_other_data_upstream_is_noticed(setup, worked, tmp_path):
    self_align(setup.config, tmp_path, [1, 2], setup=setup)
    first = stage_folder(tmp_path, 1)
    text = first.data.read_text()
    first.data.write_text("{}\n")
    with pytest.raises(UserError, match="1_instructions/data.jsonl: is not what its manifest"):
        self_align(setup.config, tmp_path, [3], setup=setup)
    first.data.write_text(text)
    manifest = first.manifest() | {"counts": {"made": 100}}
    (first.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="2_answers.*inputs.instructions was"):
        self_align(setup.config, tmp_path, [3], setup=setup)
    assert worked == [1, 2]


@pytest.mark.parametrize(
    ("number", "field"),
    [
        (1, "seeds"),
        (1, "kinds"),
        (2, "principles"),
        (2, "examples"),
        (4, "prompts"),
        (4, "principles"),
        (4, "preferences.source"),
        (4, "shaping.guards"),
        (4, "verbose.persona"),
    ],
)
def test_a_file_of_the_user_s_that_was_edited_is_noticed(setup, worked, tmp_path, number, field):
    own, work = tmp_path / "own.txt", tmp_path / "work"
    own.write_text("as it was")
    name = f"self_align.{STAGES[number]}.{field}"
    config = changed(setup.config, {name: str(own)})
    self_align(config, work, setup=setup)
    own.write_text("edited")
    (stage_folder(work, number).path / "manifest.json").unlink()  # as if it had been killed
    with pytest.raises(UserError, match=rf"{number}_\w+: made with other.*files.{field} was"):
        self_align(config, work, range(1, number + 1), setup=setup)
    own.write_text("as it was")
    self_align(config, work, range(1, number + 1), setup=setup)
    assert worked == [1, 2, 3, 4, number]


def test_a_folder_of_something_else_is_left_alone(setup, worked, tmp_path):
    path = stage_folder(tmp_path, 1).path
    path.mkdir()
    (path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="1_instructions: not empty, and no stage of ours"):
        self_align(setup.config, tmp_path, setup=setup)
    assert not worked and [file.name for file in path.iterdir()] == ["letter.txt"]


def test_stages_by_name_of_numbers():
    assert parse_stages("1-4") == tuple(STAGES)
    assert parse_stages("3,1") == (1, 3)
    for wrong in ("", "0", "5", "2-x", "4-2"):
        with pytest.raises(UserError, match="--stages"):
            parse_stages(wrong)
