"""Raw text as real processes: from random weights, and from SmolLM2-135M, killed and resumed."""

import os
import signal
import subprocess
import sys

from interrupting import metrics_of
from real_runs import finished, wait_for_step


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


def test_smollm2_is_reviewed_by_its_frozen_copy_also_after_a_kill(tmp_path):
    command = command_of("checkpoint_short", tmp_path / "run") + ["--config.training.batch_size=2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for_step(tmp_path / "run", 1, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    again = finished(command)
    assert again.returncode == 0, again.stderr
    assert "the frozen copy is the policy of step 0" in again.stderr
    metrics = metrics_of(tmp_path / "run")
    assert sorted(metrics) == [0, 1, 2]
    assert all("alignment_loss" in values for values in metrics.values())
