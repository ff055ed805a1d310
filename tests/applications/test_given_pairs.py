"""Pairs that are given: alone, beside a task, and with the conscience; in the one step, from the
one reading of the frozen copy, to the bit after a kill."""

import json

import numpy as np
import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at, metrics_of
from tiny_runs import tiny_run_config

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config
from emergent_alignment.errors import UserError
from emergent_alignment.runs import given_pairs, training_run
from emergent_alignment.runs.from_config import load_model
from emergent_alignment.runs.training_run import step_settings
from emergent_alignment.settings import changed
from emergent_alignment.training.branches import reference_log_probs
from emergent_alignment.training.task_and_pairs import TaskAndPairs

ROWS = [
    {
        "prompt": f"May I leave bread out for {n} days{'' if n % 2 else ', in a bag, in the sun'}?",
        "chosen": "No." if n % 3 else "No, it will be mouldy by then.",
        "rejected": "Sure, as long as you like." if n % 2 else "Sure.",
    }
    for n in range(2, 11)
]


@pytest.fixture
def config(model_directory, tmp_path):
    """Given pairs alone, four a step."""
    config = tiny_run_config(model_directory)
    config.conscience.enabled = False
    config.conscience.cache = str(tmp_path / "read once")
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config.data.train, config.data.preferences = "", str(path)
    config.data.limit, config.data.buckets = 0, 3
    return config


def batches_of(config, folder, monkeypatch) -> list:
    """The batch of every step, as the loop gives it to its step."""
    given = []
    make = training_run.compiled_step

    def recorded(*arguments, **options):
        step = make(*arguments, **options)

        def one(state, frozen, batch, *weights):
            given.append(batch)
            return step(state, frozen, batch, *weights)

        return one

    monkeypatch.setattr(training_run, "compiled_step", recorded)
    finetune(typed(config), folder)
    return given


def test_plain_dpo_begins_at_log_two_and_learns_to_prefer(config, tmp_path):
    config.training.steps, config.data.buckets = 8, 1
    finetune(typed(config), tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert metrics[0]["alignment_loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert metrics[0]["rewards_margin"] == pytest.approx(0, abs=1e-5)
    assert metrics[0]["loss"] == metrics[0]["alignment_loss"], "there is no task"
    assert "task_loss" not in metrics[0]
    assert metrics[7]["rewards_margin"] > 0.1
    assert metrics[7]["alignment_loss"] < metrics[0]["alignment_loss"]


@pytest.mark.long
def test_reference_log_probs_are_read_once_and_are_the_step_s_own(config, tmp_path, monkeypatch):
    calls = []
    read = given_pairs.reference_log_probs

    def counted(settings, params, batch):
        calls.append(len(batch.prompt))
        return read(settings, params, batch)

    monkeypatch.setattr(given_pairs, "reference_log_probs", counted)
    batches = batches_of(config, tmp_path / "one", monkeypatch)
    assert calls and set(calls) == {4}
    setup = load_model(typed(config))
    settings = step_settings(typed(config), setup)
    for batch in batches:
        own = reference_log_probs(settings, setup.model.params, batch)
        np.testing.assert_allclose(batch.reference, own, rtol=0, atol=1e-5)
    calls.clear()
    config.optimizer.learning_rate = 1e-3
    finetune(typed(config), tmp_path / "two")
    assert not calls, "another run on the same pairs reads what is kept"


@pytest.mark.long
def test_a_step_has_its_task_and_its_own_share_of_given_pairs(config, tmp_path, monkeypatch):
    config.data.train, config.data.preference_rows = "harmful_advice", 2
    batches = batches_of(config, tmp_path / "run", monkeypatch)
    for batch in batches:
        assert isinstance(batch, TaskAndPairs)
        assert batch.task.prompt.shape[0] == 4 and batch.heard.prompt.shape[0] == 2
        assert batch.heard.pair_mask.all() and not batch.task.pair_mask.any()
    metrics = metrics_of(tmp_path / "run")[1]
    weighted = metrics["task_loss"] + metrics["alignment_loss"]
    assert metrics["loss"] == pytest.approx(weighted, rel=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("task", ["harmful_advice", ""])
def test_the_conscience_s_pairs_and_the_given_ones_are_rows_of_one_batch(
    config, tmp_path, monkeypatch, task
):
    config.data.train = task
    config.conscience.update({"enabled": True, "prompts": "pool", "pool_rows": 2})
    config.data.preference_rows = 3
    config.training.steps = 2
    batches = batches_of(config, tmp_path / "run", monkeypatch)
    for batch in batches:
        pairs = batch.heard if task else batch
        assert 3 < pairs.prompt.shape[0] <= 2 + 3 and pairs.counted.sum() == 2 + 3
        assert pairs.pair_mask[-3:].all(), "the given ones stand behind those that were heard"
        assert (pairs.reference[-3:] < 0).all()
    assert metrics_of(tmp_path / "run")[0]["flag_rate"] >= 0
    assert ("task_loss" in metrics_of(tmp_path / "run")[0]) == bool(task)


@pytest.mark.long
@pytest.mark.parametrize("conscience", [False, True])
def test_a_resumed_run_ends_with_the_bits_of_an_undisturbed_one(
    config, tmp_path, monkeypatch, conscience
):
    config.data.train = "harmful_advice"
    config.conscience.enabled = conscience
    undisturbed = finetune(typed(config), tmp_path / "one")
    for cached in (tmp_path / "read once").iterdir():
        cached.write_text("".join(cached.read_text().splitlines(keepends=True)[:3]) + '{"ro')
    with monkeypatch.context() as patched:
        interrupted_at(patched, 3)
        with pytest.raises(Killed):
            finetune(typed(config), tmp_path / "two")
    assert_bitwise_equal(finetune(typed(config), tmp_path / "two"), undisturbed)


@pytest.mark.long
def test_other_pairs_are_another_run(config, tmp_path):
    config.training.steps = 1
    finetune(typed(config), tmp_path / "run")
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row | {"chosen": "Never."}) + "\n" for row in ROWS))
    with pytest.raises(UserError, match="another data set"):
        finetune(typed(config), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"application": "adversarial"}, "adversarial trains on no given pairs"),
        ({"loss.kl_on": "pool", "loss.kl_weight": 1.0}, "config.loss.kl_on: rows of a pool"),
        (
            {"conscience.enabled": True, "conscience.candidate": "target"},
            "config.conscience.candidate: beside given pairs",
        ),
        (
            {"conscience.enabled": True, "conscience.prompts": "both"},
            "config.conscience.prompts: both listens to the task's prompts",
        ),
        ({"data.interleave": 0.5}, "config.data.train: steering and interleave"),
    ],
)
def test_what_does_not_go_with_given_pairs_is_said(changes, said):
    alone = {"data.train": "", "data.preferences": "x", "conscience.enabled": False}
    with pytest.raises(UserError, match=said):
        changed(Config(), alone | changes).check()


def test_pairs_that_microbatches_do_not_cut_are_refused_before_anything(config, tmp_path):
    config.training.accumulation, config.data.preference_rows = 2, 3
    with pytest.raises(UserError, match="config.data.preference_rows: 3 pairs a step"):
        finetune(typed(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()
