"""Loggers: told of a run, read by nobody, and no run ends of them."""

import json

import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.storage.json_lines import read_json_lines
from emergent_alignment.training import loggers
from emergent_alignment.training.loggers import Loggers, ShownRun, makers_of

RECORD = {
    "outcome": "revised",
    "prompt": [{"role": "user", "content": "What now?"}],
    "candidate": "This.",
    "candidate_score": -0.5,
    "revision": "That.",
    "revision_score": 0.5,
}


class Remembering:
    """Writes what it is told into the run's folder; fails where it is told of step `fails_at`."""

    fails_at = None

    def __init__(self, shown):
        self.file = shown.workdir / "told.jsonl"
        self._tell({"first_step": shown.first_step, "project": shown.project})

    def scalars(self, step, values):
        if step == self.fails_at:
            raise RuntimeError("the service is gone")
        self._tell({"step": step, "values": dict(values)})

    def texts(self, step, records):
        self._tell({"step": step, "texts": len(records)})

    def close(self):
        self._tell({"closed": True})

    def _tell(self, record):
        with self.file.open("a") as file:
            file.write(json.dumps(record) + "\n")


class Failing(Remembering):
    fails_at = 1


class Unable(Remembering):
    def __init__(self, shown):
        raise RuntimeError("nobody is logged in")


def own(name):
    return f"python:{__name__}.{name}"


@pytest.fixture
def shown(tmp_path):
    return ShownRun(tmp_path, 0, {"seed": 0}, "a project")


def told_of(shown):
    return list(read_json_lines(shown.workdir / "told.jsonl"))


def test_a_logger_of_ones_own_is_told_everything(shown):
    told = Loggers([own("Remembering")], shown)
    told.scalars(0, {"loss": 1.0})
    told.texts(1, [RECORD])
    told.close()
    assert told_of(shown) == [
        {"first_step": 0, "project": "a project"},
        {"step": 0, "values": {"loss": 1.0}},
        {"step": 1, "texts": 1},
        {"closed": True},
    ]


def test_one_that_fails_is_named_and_the_others_go_on(shown, capsys):
    told = Loggers([own("Failing"), "tensorboard"], shown)
    for step in range(3):
        told.scalars(step, {"loss": 1.0})
    told.close()
    assert [one.get("step") for one in told_of(shown)] == [None, 0]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Failing" in said and "the service is gone" in said
    (events,) = (shown.workdir / "tensorboard").iterdir()
    assert events.read_bytes().count(b"loss") == 3


def test_a_full_disk_ends_the_run_whoever_writes(shown, monkeypatch):
    def full(self, step, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Remembering, "scalars", full)
    told = Loggers([own("Remembering")], shown)
    with pytest.raises(OSError, match="No space left"):
        told.scalars(0, {})


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["tensorbord"], "no logger is called 'tensorbord'; there are tensorboard, wandb, trackio"),
        (["python:nothing.here"], "cannot be imported"),
        ([own("RECORD")], "is no function of"),
    ],
)
def test_a_name_that_is_none_is_refused_before_anything_starts(names, said):
    with pytest.raises(UserError, match=said):
        makers_of(names)


def test_what_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'emergent-alignment\[wandb\]'"):
        makers_of(["wandb"])


def test_a_folder_of_a_logger_s_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "trackio").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="trackio is not installed"):
        makers_of(["trackio"])


def test_one_that_cannot_start_is_an_error_of_one_line(shown):
    with pytest.raises(UserError, match="Unable cannot start: RuntimeError: nobody is logged in"):
        Loggers([own("Unable")], shown)


def test_a_run_is_the_same_one_to_its_loggers_at_every_start(shown):
    again = ShownRun(shown.workdir, 7, {}, "a project")
    assert shown.id() == again.id() and len(shown.id()) == 32
