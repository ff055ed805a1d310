"""A run whose work directory is a mounted bucket, as tests/bucket_mount.py plays it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiling_once
from real_runs import finished, train_command
from tiny_chat_model import write_tiny_chat_model
from two_hosts import all_done, ends, environment, free_port, start_two

from emergent_alignment.config import Config
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.storage.json_lines import read_json_lines
from emergent_alignment.training.checkpoints import Checkpoints, RunIdentity
from emergent_alignment.training.metrics import metrics_by_step
from emergent_alignment.training.state import TrainState

TESTS = Path(__file__).parents[1]
# So many that no run is over before it is killed.
STEPS = 24
# Rounds are kept for later steps, and what the frozen copy says of given pairs is cached.
CHANGES = {
    "conscience.every": 2,
    "conscience.replay": 4,
    "training.steps": STEPS,
    "training.checkpoint_every": 4,
}
# How long things took, and what had to be compiled, is each process's own.
OWN = ("seconds", "tokens_per_second", "model_flops_per_second", "mfu")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    with compiling_once(tmp_path_factory.mktemp("compiled")), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    return write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def command_in(model_directory, tmp_path_factory):
    """The command that trains in a work directory."""
    rows = [
        {"prompt": f"May I have {i}?", "chosen": f"yes, {i}", "rejected": f"no {i} " * (1 + i % 3)}
        for i in range(9)
    ]
    path = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = CHANGES | {"data.preferences": path}
    return lambda workdir: train_command(model_directory, workdir, **changes)


@pytest.fixture(scope="module")
def undisturbed(command_in, tmp_path_factory):
    """The run in a plain folder."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    done = finished(command_in(workdir))
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(autouse=True)
def imports(monkeypatch):
    """Processes of these tests find bucket_mount.py."""
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")


def there(root: Path, command: list[str]) -> list[str]:
    """The command, where `root` is a mounted bucket."""
    words = command[command.index("train") :]
    return [sys.executable, "-m", "bucket_mount", str(root), *words]


def on_a_bucket(root: Path, command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(there(root, command), stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 1200
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.01)


def steps_of(workdir: Path) -> list[dict]:
    return [
        {name: value for name, value in line.items() if not name.startswith(OWN)}
        for line in metrics_by_step(workdir)
    ]


def trainable(workdir: Path):
    found = read_run(workdir, Config)
    assert found.steps == STEPS
    return jax.tree.map(np.asarray, found.trained.model.adapters)


def test_a_run_killed_on_a_bucket_ends_with_the_bits_of_an_undisturbed_one_on_a_disk(
    command_in, undisturbed, tmp_path, monkeypatch
):
    """… and says the same. Killed twice: as a checkpoint is being written, and somewhere."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    root = tmp_path / "bucket"
    root.mkdir()
    command = command_in(root / "run")
    for step, seconds in ((4, 0), (12, random.SystemRandom().random() / 2)):
        process = on_a_bucket(root, command)
        wait_for(root / "run" / "checkpoints" / str(step), process)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was over before"
    last = on_a_bucket(root, command)
    said = last.communicate(timeout=1200)[1]
    assert last.returncode == 0, said
    # The machine is gone, and with it all but the bucket.
    kept = shutil.copytree(root / "run", tmp_path / "elsewhere" / "run")
    for ours, theirs in zip(
        jax.tree.leaves(trainable(kept)), jax.tree.leaves(trainable(undisturbed)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert read_journal(kept / "journal") == read_journal(undisturbed / "journal")
    assert steps_of(kept) == steps_of(undisturbed)
    assert not (kept / "metrics.jsonl").exists()
    assert list((kept / ".cache" / "reference-log-probs").iterdir())
    steps = list((kept / ".cache" / "compiled").rglob("jit_train_step-*-cache"))
    assert 1 <= len(steps) <= 3, "a program for each number of rows with pairs"
    ours, theirs = (list(read_json_lines(run / "rounds.jsonl")) for run in (kept, undisturbed))
    assert ours == theirs


def test_two_hosts_that_are_killed_on_a_bucket_go_on_and_keep_all_they_recorded(
    command_in, undisturbed, tmp_path
):
    root = tmp_path / "bucket"
    root.mkdir()
    command = there(root, command_in(root / "run"))
    hosts = start_two([[*command, "--config.mesh.fsdp=2"]] * 2, devices=1)
    wait_for(root / "run" / "checkpoints" / "8" / "commit_success.txt", hosts[0])
    for host in hosts:
        host.kill()
    ends(hosts)
    all_done(start_two([[*command, "--config.mesh.fsdp=2"]] * 2, devices=1))
    kept = [read_journal(run / "journal") for run in (root / "run", undisturbed)]
    for ours, theirs in zip(*kept, strict=True):
        for name in ("step", "place", "prompt"):
            assert ours[name] == theirs[name]
    assert len(metrics_by_step(root / "run")) == STEPS
    first, second = (
        {path.name.split(".")[0] for path in (root / "run" / "journal").glob(f"*.{host}.00000.*")}
        for host in ("host-000", "host-001")
    )
    assert first == second and len(first) == 2, "a shard a start of each, from the same steps on"


SEES = """
import sys
from pathlib import Path
import jax.numpy as jnp
from emergent_alignment.parallel.hosts import connect
from emergent_alignment.training.checkpoints import Checkpoints, RunIdentity
from emergent_alignment.training.state import TrainState

folder, port, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
connect(coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=number, timeout_seconds=60)
if number:
    import etils.epath.gpath
    iterdir = etils.epath.gpath.PosixGPath.iterdir
    etils.epath.gpath.PosixGPath.iterdir = lambda path: (
        found for found in iterdir(path) if found.name != "5"
    )
    assert "5" not in [found.name for found in etils.epath.Path(folder).iterdir()]
checkpoints = Checkpoints(folder, RunIdentity("frozen", "data"))
print("sees", checkpoints.latest())
"""


def test_hosts_go_on_from_the_step_that_the_first_one_finds(tmp_path):
    """… where another host's list of the folder is an older one."""
    folder, state = tmp_path / "checkpoints", TrainState({"a": jnp.zeros(3)}, {"b": jnp.zeros(2)})
    checkpoints = Checkpoints(folder, RunIdentity("frozen", "data"))
    for step in (3, 5):
        checkpoints.save(step, state, loss=1.0)
    checkpoints.close()
    port = str(free_port())
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", SEES, str(folder), port, str(number)],
            env=environment(1),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for host in hosts:
        said, failed = host.communicate(timeout=200)
        assert host.returncode == 0 and said.splitlines()[-1] == "sees 5", failed
