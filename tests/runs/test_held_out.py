"""Evaluation in the loop: its figures are those of the evaluation command, its best checkpoint is
kept, and a run that gains nothing ends, also where it was killed meanwhile."""

import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at, metrics_of
from tiny_runs import tiny_run_config

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.judge_free import (
    TokenLimits,
    held_out_margin,
    held_out_task_loss,
)
from emergent_alignment.runs.from_config import evaluation_examples
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.storage.spread import spread

pytestmark = pytest.mark.long


@pytest.fixture
def config(model_directory, tmp_path):
    config = tiny_run_config(model_directory)
    config.conscience.enabled = False
    config.conscience.cache = str(tmp_path / "cache")
    config.evaluation.update({"every": 2, "loop_rows": 6, "best": "task_loss"})
    return config


def test_the_figures_are_those_that_the_evaluation_command_finds(config, tmp_path):
    config.evaluation.loop_samples = 4
    finetune(typed(config), tmp_path / "run")
    found = read_run(tmp_path / "run", Config)
    metrics = metrics_of(tmp_path / "run")
    assert [step for step, values in metrics.items() if "held_out/margin" in values] == [1, 3]
    examples = spread(evaluation_examples(typed(config).data, 0), 6)
    given = found.trained.model, found.trained.model.policy, found.trained.chat, examples
    limits = TokenLimits(48, 48, 32, 4)
    margin = held_out_margin(*given, limits)["margin"]["value"]
    assert metrics[3]["held_out/margin"] == pytest.approx(margin, abs=1e-3)
    loss = held_out_task_loss(*given, limits).value
    assert metrics[3]["held_out/task_loss"] == pytest.approx(loss, abs=1e-4)
    assert metrics[3]["held_out/kl"] > metrics[1]["held_out/kl"] > 0
    base = held_out_margin(found.base.model, found.base.model.params, *given[2:], limits)
    moved = margin - base["margin"]["value"]
    assert metrics[3]["held_out/margin_moved"] == pytest.approx(moved, abs=1e-3)
    assert 0 <= metrics[3]["held_out/flag_rate"] <= 1


def test_the_best_checkpoint_is_kept_and_a_run_without_gain_ends(config, tmp_path, capsys):
    """The KL from the frozen copy is the least after the first evaluation."""
    config.training.update({"steps": 12, "checkpoint_every": 2, "keep_checkpoints": 1})
    config.evaluation.update({"best": "kl", "patience": 2})
    finetune(typed(config), tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    measured = [step + 1 for step, values in metrics.items() if "held_out/kl" in values]
    assert measured == [2, 4, 6], "two evaluations, every two steps, after the best"
    assert len(metrics) == 6
    kept = {int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {2, 6}
    said = capsys.readouterr().err
    assert "stopped after step 6: no better held_out/kl in 2 evaluations" in said
    assert ", after 2 steps" in said
    finetune(typed(config), tmp_path / "run")
    assert len(metrics_of(tmp_path / "run")) == 6, "it has ended"
    assert read_run(tmp_path / "run", Config, step=2).steps == 2


def test_a_killed_run_evaluates_keeps_and_ends_as_an_undisturbed_one(config, tmp_path, monkeypatch):
    config.training.update({"steps": 12, "checkpoint_every": 1})
    config.evaluation.update({"best": "kl", "patience": 2})
    undisturbed = finetune(typed(config), tmp_path / "one")
    with monkeypatch.context() as patched:
        interrupted_at(patched, 3)
        with pytest.raises(Killed):
            finetune(typed(config), tmp_path / "two")
    assert_bitwise_equal(finetune(typed(config), tmp_path / "two"), undisturbed)
    ours, theirs = (metrics_of(tmp_path / name) for name in ("two", "one"))
    assert ours.keys() == theirs.keys() and len(theirs) == 6
    for step, values in theirs.items():
        timeless = {k: v for k, v in values.items() if k.startswith("held_out/")}
        assert {k: v for k, v in ours[step].items() if k.startswith("held_out/")} == timeless


def test_rows_without_two_answers_have_no_best_margin(config, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Hm?", "answer": "Yes."}\n' * 3)
    config.data.evaluation, config.evaluation.best = str(rows), "margin"
    with pytest.raises(UserError, match="config.evaluation.best: .*rows.jsonl has no row with two"):
        finetune(typed(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()
