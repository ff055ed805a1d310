"""What hooks are told of a run and may do to it; the alarm for displacement."""

import pytest
from interrupting import assert_bitwise_equal, metrics_of
from tiny_runs import tiny_run_config

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config
from emergent_alignment.errors import UserError
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.settings import changed
from emergent_alignment.training.displacement import WINDOW, DisplacementAlarm
from emergent_alignment.training.hooks import Hooks, NoHook, Told

TOLD = []


class Listener(NoHook):
    """Notes what it is told, and ends the run after three steps."""

    def begin(self, first_step):
        TOLD.append(("begin", first_step))
        return ""

    def step_done(self, step, trainable, scalars):
        TOLD.append(("step", step, scalars["nonfinite"]))
        return Told({"mine/step": float(step)}, stop="enough" if step == 2 else "")

    def saved(self, steps_done):
        TOLD.append(("saved", steps_done))

    def end(self, steps_done):
        TOLD.append(("end", steps_done))


def listener(run):
    """As config.training.hooks names it."""
    TOLD.append(("of", run.workdir.name))
    return Listener()


@pytest.mark.long
def test_a_hook_that_the_config_names_is_told_of_the_run_and_may_end_it(model_directory, tmp_path):
    config = tiny_run_config(model_directory)
    config.conscience.enabled = False
    config.training.hooks = ("python:test_hooks.listener",)
    TOLD.clear()
    state = finetune(typed(config), tmp_path / "run")
    assert TOLD == [
        ("of", "run"),
        ("begin", 0),
        ("step", 0, 0.0),
        ("step", 1, 0.0),
        ("saved", 2),
        ("step", 2, 0.0),
        ("saved", 3),
        ("end", 3),
    ]
    assert [values["mine/step"] for values in metrics_of(tmp_path / "run").values()] == [0, 1, 2]
    found = read_run(tmp_path / "run", Config)
    assert found.steps == 3
    assert_bitwise_equal(found.trained.model.adapters, state.trainable)


def test_a_name_that_is_no_hook_is_refused(model_directory, tmp_path):
    config = tiny_run_config(model_directory)
    config.training.hooks = ("python:test_hooks.nobody",)
    with pytest.raises(UserError, match="config.training.hooks: python:test_hooks.nobody cannot"):
        finetune(typed(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_hooks_are_one_and_the_first_word_counts():
    class Says(NoHook):
        def __init__(self, told):
            self.told = told

        def step_done(self, step, trainable, scalars):
            return self.told

    says = (Told({"a": 1.0}), Told({"b": 2.0}, 3.0, "first"), Told({}, 4.0, "second"))
    told = Hooks([Says(one) for one in says]).step_done(0, None, {})
    assert told == Told({"a": 1.0, "b": 2.0}, 3.0, "first")


def step_scalars(moved: float) -> dict:
    """Of pairs whose chosen answers had −100 nats, with β = 0.1."""
    return {"rewards_chosen": 0.1 * moved, "log_probs_chosen": -100 + moved}


@pytest.mark.parametrize(("moved", "alarms"), [(-15.0, 1), (-5.0, 0), (20.0, 0)])
def test_the_alarm_says_once_that_chosen_answers_fall(capsys, moved, alarms):
    alarm = DisplacementAlarm(0.1, 0.1)
    for step in range(3 * WINDOW):
        told = alarm.step_done(step, None, step_scalars(moved))
        assert told.scalars["displacement"] == pytest.approx(-moved / 100)
    assert capsys.readouterr().err.count("displacement: the chosen answers") == alarms


def test_one_bad_step_is_no_alarm(capsys):
    alarm = DisplacementAlarm(0.1, 0.1)
    for step in range(3 * WINDOW):
        alarm.step_done(step, None, step_scalars(-50.0 if step == WINDOW else 0.0))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation.best": "margin"}, "config.evaluation.best: nothing is evaluated"),
        (
            {"evaluation.every": 2, "evaluation.patience": 3},
            "config.evaluation.patience: no figure",
        ),
        (
            {"evaluation.every": 2, "evaluation.best": "flag_rate"},
            "config.evaluation.best: without answers",
        ),
    ],
)
def test_what_finds_the_best_needs_what_it_is_found_by(changes, said):
    with pytest.raises(UserError, match=said):
        changed(Config(), changes).evaluation.check()
