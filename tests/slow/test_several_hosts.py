"""Two processes on this machine are two hosts: they train what one does, and go down together.

Nearly all of a short run is compilation, so these processes compile cheaply, keep what they have
compiled for each other, and several tests look at the same runs.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from compilation import compiling_once
from real_runs import STEPS, finished, train_command, wait_for_step
from safetensors.numpy import load_file
from tiny_chat_model import write_tiny_chat_model
from two_hosts import all_done, ends, environment, start_two

from emergent_alignment.config import Config
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.errors import STOPPED_EXIT_CODE
from emergent_alignment.parallel.watch import LOST_HOST_EXIT_CODE
from emergent_alignment.runs.workdir import read_run

LOCAL = Path(__file__).parents[2] / "launch" / "local_processes.sh"
HALF = STEPS // 2
SETTINGS = {
    "seed": 1,  # no sample of these runs lies on the edge between two tokens
    "training.batch_size": 8,
    "training.checkpoint_every": HALF // 2,
    "training.keep_checkpoints": 4,
    "conscience.chain": "('rewrite','fresh')",
    # Adam magnifies the rounding of gradients that are all but 0, which differs from mesh to mesh.
    "optimizer.epsilon": 1e-5,
}
MESHES = {"2x2x2": (8, (2, 2, 2)), "1x8x1": (8, (1, 8, 1)), "1x1x1": (1, (1, 1, 1))}


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    with compiling_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    return write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")


def command_of(model_directory, workdir, **changes):
    return train_command(model_directory, workdir, **(SETTINGS | {"mesh.fsdp": 2} | changes))


def start_on(model_directory, workdir, mesh: str, **changes) -> subprocess.Popen:
    """A run on one of MESHES, in one process."""
    devices, sizes = MESHES[mesh]
    flags = dict(zip(("mesh.data", "mesh.fsdp", "mesh.tensor"), sizes))
    return subprocess.Popen(
        command_of(model_directory, workdir, **flags, **changes),
        env=environment(devices),
        stderr=subprocess.PIPE,
        text=True,
    )


def trainable(workdir):
    found = read_run(workdir, Config)
    assert found.steps == STEPS
    return jax.tree.map(np.asarray, found.trained.model.adapters)


@pytest.fixture(scope="module")
def undisturbed(model_directory, tmp_path_factory):
    """A run of two processes with four devices each, started by the launch script."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    command = command_of(model_directory, workdir)
    module = command.index("emergent_alignment")
    done = finished(
        [str(LOCAL), "--devices", "4", "2", "--", *command[module + 1 :]],
        env=os.environ | {"PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def alone(model_directory, tmp_path_factory):
    """The same run in one process of eight devices, all on fsdp, and on one device."""
    root = tmp_path_factory.mktemp("alone")
    all_done([start_on(model_directory, root / mesh, mesh) for mesh in ("1x8x1", "1x1x1")])
    return root


LISTENING = {
    "conscience.chain": "('fork','amend','best','self')",
    "conscience.cuts": "turn",
    "conscience.gate": "own",
    "conscience.own_flags": 0.5,
    "conscience.own_answers": 8,
    "conscience.samples": 2,
    "conscience.prompts": "both",
    "conscience.pool_rows": 8,
    "conscience.every": 2,
    "conscience.replay": 4,
    "loss.reference": "policy",
    "loss.alignment_weight": "auto",
    "loss.price.yardstick": 20,
}


def test_two_hosts_listen_to_what_one_does(model_directory, tmp_path):
    """A pool beside the task, rounds that are replayed, the policy's own corrections, and a price:
    the same pairs, and the same parameters."""
    commands = [command_of(model_directory, tmp_path / "two", **LISTENING)] * 2
    all_done(start_two(commands))
    all_done([start_on(model_directory, tmp_path / "one", "1x8x1", **LISTENING)])
    rounds = [
        [json.loads(line) for line in (tmp_path / run / "rounds.jsonl").open()]
        for run in ("two", "one")
    ]
    for ours, theirs in zip(*rounds, strict=True):
        for row, other in zip(ours["rows"], theirs["rows"], strict=True):
            for name in ("place", "prompt", "chosen", "rejected"):
                assert row[name] == other[name]
        for name in ("scores", "yardstick"):
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-3)
    assert any(row["chosen"] for row in rounds[0][0]["rows"])
    for ours, theirs in zip(
        jax.tree.leaves(trainable(tmp_path / "two")), jax.tree.leaves(trainable(tmp_path / "one"))
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_two_hosts_train_on_the_given_pairs_that_one_does(model_directory, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of their reference log-probs
    kinds = [("yes", "no"), ("never", "always, and more than once"), ("ask", "")]
    rows = [
        {"prompt": f"May I have {i}?", "chosen": f"{good} {i}", "rejected": f"{bad} {i}"}
        for i in range(7)
        for good, bad in kinds
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"data.preferences": path, "conscience.enabled": False}
    two = [command_of(model_directory, tmp_path / "two", **changes)] * 2
    all_done(start_two(two))
    shutil.rmtree(tmp_path / "cache")
    all_done([start_on(model_directory, tmp_path / "one", "1x8x1", **changes)])
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").open()]
        for run in ("two", "one")
    )
    for name in ("task_loss", "alignment_loss", "rewards_margin", "log_probs_rejected"):
        own, other = ([line[name] for line in lines] for lines in (ours, theirs))
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)
    assert all(line["alignment_loss"] > 0 for line in ours)
    for ours, theirs in zip(
        jax.tree.leaves(trainable(tmp_path / "two")), jax.tree.leaves(trainable(tmp_path / "one"))
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mesh", ["1x8x1", "1x1x1"])
def test_two_hosts_train_to_the_parameters_of_one(undisturbed, alone, mesh):
    """… whatever each host's rows need: candidates, verdicts and corrections are the same."""
    for ours, theirs in zip(
        jax.tree.leaves(trainable(undisturbed)), jax.tree.leaves(trainable(alone / mesh))
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    journals = [read_journal(run / "journal") for run in (undisturbed, alone / mesh)]
    assert len(journals[0]) == 8 * STEPS
    for ours, theirs in zip(*journals, strict=True):
        assert {k: v for k, v in ours.items() if "score" not in k and k != "attempts"} == {
            k: v for k, v in theirs.items() if "score" not in k and k != "attempts"
        }
    assert len(list((undisturbed / "journal").glob("*.host-001.jsonl"))) == 1


def test_hosts_ask_each_other_three_times_a_step(undisturbed):
    """Whether one was asked to stop, twice, and how long its rows are: what they sample, review and
    correct, all of them have."""
    lines = [json.loads(line) for line in (undisturbed / "metrics.jsonl").open()]
    assert np.diff([line["host_gathers"] for line in lines]).tolist() == [3] * (STEPS - 1)


def test_a_run_goes_on_on_another_mesh(model_directory, alone, tmp_path):
    """Saved on 1×8×1 at the half, continued on 2×2×2 and on one device: the same losses."""
    went_on = ("2x2x2", "1x1x1")
    for mesh in went_on:
        shutil.copytree(alone / "1x8x1", tmp_path / mesh)
        for checkpoint in (tmp_path / mesh / "checkpoints").iterdir():
            if checkpoint.name.isdigit() and int(checkpoint.name) > HALF:
                shutil.rmtree(checkpoint)
    all_done([start_on(model_directory, tmp_path / mesh, mesh) for mesh in went_on])
    expected = losses_of(alone / "1x8x1", times_done=1)
    for mesh in went_on:
        found = losses_of(tmp_path / mesh, times_done=2)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def losses_of(workdir: Path, times_done: int) -> list[float]:
    """The losses of the second half's steps, the last time that each was done; those of the first
    half were done once."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert sorted(steps) == [*range(HALF), *sorted([*range(HALF, STEPS)] * times_done)]
    found = {line["step"]: line["loss"] for line in lines if line["step"] >= HALF}
    return [found[step] for step in range(HALF, STEPS)]


def test_no_host_reads_or_holds_the_whole_model(model_directory, tmp_path):
    """Each reads the parts of its own devices; an export has one tensor at a time on a host."""
    command = [sys.executable, Path(__file__).with_name("load_and_export.py")]
    job = {"SLURM_JOB_ID": str(random.SystemRandom().randrange(4096))}  # it decides the port
    job |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    processes = [
        subprocess.Popen(
            [*command, model_directory, tmp_path / "out"],
            env=environment(4) | job | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    found = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], found
    weights = (model_directory / "model.safetensors").read_bytes()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights
    largest = max(
        tensor.nbytes for tensor in load_file(model_directory / "model.safetensors").values()
    )
    for said, _ in found:
        counted = json.loads(said.splitlines()[-1])
        assert counted["read"] < 0.55 * len(weights), "norms are the only tensors that both read"
        assert counted["largest"] == largest and counted["all"] > 0.9 * len(weights)


def test_a_host_killed_at_a_random_step_stops_the_other_and_both_resume_exactly(
    model_directory, undisturbed, tmp_path
):
    command = command_of(model_directory, tmp_path / "run")
    processes = start_two([command] * 2)
    wait_for_step(tmp_path / "run", random.SystemRandom().randrange(1, STEPS - 2), processes[0])
    victim = random.SystemRandom().randrange(2)
    processes[victim].kill()
    code, said = ends(processes, timeout=90)[1 - victim]
    if victim or code != -signal.SIGABRT:
        assert code == LOST_HOST_EXIT_CODE, said
        assert "start all hosts again" in said.splitlines()[-1]
    else:  # JAX's client of host 0 ends the process where it learns of its death before we do
        assert "another task died" in said
    all_done(start_two([command] * 2))
    resumed, expected = trainable(tmp_path / "run"), trainable(undisturbed)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_sigterm_to_one_host_saves_on_all(model_directory, tmp_path):
    changes = {"training.steps": 10_000, "training.checkpoint_every": 10_000}
    processes = start_two([command_of(model_directory, tmp_path / "run", **changes)] * 2)
    wait_for_step(tmp_path / "run", 1, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    for code, said in ends(processes):
        assert code == STOPPED_EXIT_CODE, said
        assert "run it again to go on" in said
    assert any((tmp_path / "run" / "checkpoints").iterdir())


def test_hosts_that_were_started_differently_say_in_what(model_directory, tmp_path):
    commands = [
        command_of(model_directory, tmp_path / "run", **{"loss.beta": beta}) for beta in (0.1, 0.2)
    ]
    for code, said in ends(start_two(commands)):
        assert code == 2, said
        last = said.splitlines()[-1]
        assert "host 1" in last and "config.loss.beta (0.1, there 0.2)" in last
    assert not (tmp_path / "run").exists()


def test_a_mistake_on_one_host_ends_all_with_its_line(model_directory, tmp_path):
    commands = [
        command_of(path, tmp_path / "run") for path in (model_directory, tmp_path / "missing")
    ]
    for code, said in ends(start_two(commands)):
        assert code == 2, said
        assert f"{tmp_path / 'missing'}: there is no such" in said.splitlines()[-1]
