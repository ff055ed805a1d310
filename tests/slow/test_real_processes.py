"""Real processes: a run that is killed, one that is asked to stop, one whose disk is full."""

import os
import random
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from compilation import compiling_once
from real_runs import finished, train_command, wait_for_step
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.config import Config
from emergent_alignment.errors import STOPPED_EXIT_CODE
from emergent_alignment.runs.workdir import read_run

# So many that no run is over before it hears of a signal.
STEPS = 24


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """The folder of what these processes have compiled."""
    folder = tmp_path_factory.mktemp("compiled")
    with compiling_once(folder):
        yield folder


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    return write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")


def command_of(model_directory, workdir, **changes) -> list[str]:
    return train_command(model_directory, workdir, **({"training.steps": STEPS} | changes))


def trainable(workdir):
    found = read_run(workdir, Config)
    assert found.steps == STEPS
    return jax.tree.map(np.asarray, found.trained.model.adapters)


def assert_same_bits(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def undisturbed(model_directory, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    done = finished(command_of(model_directory, workdir))
    assert done.returncode == 0, done.stderr
    return workdir


def steps_in(compiled) -> set[str]:
    return {path.name for path in compiled.glob("jit_train_step-*-cache")}


def test_a_run_killed_at_a_random_step_ends_with_the_bits_of_an_undisturbed_one(
    model_directory, undisturbed, compiled, tmp_path
):
    """… and compiles no step of its own."""
    before = steps_in(compiled)
    step = random.SystemRandom().randrange(1, STEPS - 1)
    command = command_of(model_directory, tmp_path / "run")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for_step(tmp_path / "run", step, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    again = finished(command)
    assert again.returncode == 0, again.stderr
    assert_same_bits(trainable(tmp_path / "run"), trainable(undisturbed))
    assert len(before) == 1 and steps_in(compiled) == before


def test_sigterm_saves_and_exits_with_the_documented_code(model_directory, undisturbed, tmp_path):
    command = command_of(model_directory, tmp_path / "run", **{"training.checkpoint_every": 1000})
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for_step(tmp_path / "run", 1, process)
        process.terminate()
        _, said = process.communicate()
    assert process.returncode == STOPPED_EXIT_CODE, said
    assert "run it again to go on" in said
    again = finished(command)
    assert again.returncode == 0, again.stderr
    assert_same_bits(trainable(tmp_path / "run"), trainable(undisturbed))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB of its own; only root can mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = finished(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)])
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    yield place
    finished(["umount", str(place)])


def test_a_full_disk_is_one_line_and_the_old_checkpoint_survives(model_directory, small_disk):
    workdir = small_disk / "run"
    command = command_of(model_directory, workdir, **{"training.steps": 4})
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for_step(workdir, 1, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    first = finished(command)
    assert first.returncode == 0, first.stderr
    before = read_run(workdir, Config).steps
    longer = command_of(model_directory, small_disk / "other", **{"training.steps": 4})
    filler = small_disk / "filler"
    free = os.statvfs(small_disk)
    filler.write_bytes(b"x" * (free.f_bavail * free.f_frsize - 60_000))
    full = finished(longer)
    lines = [line for line in full.stderr.splitlines() if line.startswith("emergent-alignment:")]
    assert full.returncode == 2, full.stderr
    assert len(lines) == 1 and "Traceback" not in full.stderr, full.stderr
    assert read_run(workdir, Config).steps == before
    filler.unlink()
    again = finished(longer)
    assert again.returncode == 0, again.stderr


def test_the_command_runs_as_a_module_and_says_what_is_wrong_in_one_line(tmp_path):
    missing = finished(
        [sys.executable, "-m", "emergent_alignment", "train", "--workdir", str(tmp_path / "run"),
         "--config.data.train=missing.jsonl"]
    )  # fmt: skip
    assert missing.returncode == 2
    assert missing.stderr.startswith("emergent-alignment: missing.jsonl: no such file")
    assert len(missing.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
