"""Raw text as real processes: from random weights, and from SmolLM2-135M."""

import sys

from interrupting import metrics_of
from real_runs import finished


def command_of(size, workdir):
    return [
        sys.executable, "-m", "emergent_alignment", "train", "--workdir", str(workdir),
        "--config", f"configs/pretraining.py:{size}",
    ]  # fmt: skip


def evaluated(workdir):
    return finished(
        [sys.executable, "-m", "emergent_alignment", "evaluate", "corpus", "--run", str(workdir)]
    )


def test_random_weights_on_the_standard_library_run_from_their_config(tmp_path):
    done = finished(command_of("short", tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "none left out" in done.stderr
    measured = evaluated(tmp_path / "run")
    assert measured.returncode == 0, measured.stderr
    assert measured.stdout.startswith("held-out loss after 2 steps")


def test_smollm2_is_reviewed_by_its_frozen_copy(tmp_path):
    """(How such a run goes on after a kill: tests/applications/pretraining, to the bit.)"""
    command = command_of("checkpoint_short", tmp_path / "run") + ["--config.training.batch_size=2"]
    done = finished(command)
    assert done.returncode == 0, done.stderr
    assert "the frozen copy is the policy of step 0" in done.stderr
    metrics = metrics_of(tmp_path / "run")
    assert sorted(metrics) == [0, 1, 2]
    assert all("alignment_loss" in values for values in metrics.values())
