"""slurm.sbatch as a job would run it, with fakes of srun, scancel and scontrol."""

import shlex
import signal

import pytest
from fake_commands import PROJECT

JOB = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(PROJECT), "SLURM_NTASKS": "2"}
RUN = ["mine.py", "runs/first"]


def job(fakes, first: str, second: str, *words: str, runs: int = 1):
    """The job with two tasks that do this, `runs` times, as Slurm starts it after a requeue."""
    fakes.write("0.script", first)
    fakes.write("1.script", second)
    for _ in range(runs):
        done = fakes.run("slurm.sbatch", *words, *RUN, **JOB)
    return done


def requeued(fakes) -> int:
    return len(fakes.calls("scontrol requeue Incomplete 7"))


def test_each_task_gets_the_command(fakes):
    done = job(fakes, "0", "0")
    assert done.returncode == 0, done.stderr
    words = [
        "-m", "emergent_alignment", "train", "--config", "mine.py", "--workdir", "runs/first",
        "--cluster", "slurm",
    ]  # fmt: skip
    assert [call for call in fakes.calls() if call[0] == "python3"] == [["python3", *words]] * 2
    assert not requeued(fakes)
    assert not (fakes.root / "here" / "slurm-7.state").exists()


@pytest.mark.parametrize(
    "first, second, code",
    [("75", "75", 75), ("76", "0", 76), ("137", "76", 137)],
    ids=["stopped", "host lost", "killed"],
)
def test_a_run_that_can_go_on_is_requeued(fakes, first, second, code):
    assert job(fakes, first, second).returncode == code
    assert requeued(fakes) == 1


@pytest.mark.parametrize("nodes, devices", [("2", "0,1,2,3"), ("1", "unset")])
def test_a_task_that_has_a_node_sees_all_its_gpus(fakes, nodes, devices):
    fakes.write("0.script", "0")
    fakes.write("1.script", "0")
    gpus = {"SLURM_GPUS_ON_NODE": "4", "SLURM_NNODES": nodes}
    done = fakes.run("slurm.sbatch", *RUN, **JOB, **gpus)
    assert f"training on 0 with devices {devices}\n" in done.stdout


def test_a_mistake_wins_over_the_higher_code_that_srun_tells(fakes):
    done = job(fakes, "2", "76")
    assert done.returncode == 2
    assert not requeued(fakes)


def test_requeues_without_a_new_checkpoint_are_limited(fakes):
    done = job(fakes, "76 76 76", "76 76 76", "--max-restarts=2", runs=3)
    assert done.returncode == 76
    assert requeued(fakes) == 2
    assert "no new checkpoint in 2 restarts" in done.stderr


def test_requeues_with_new_checkpoints_are_not(fakes):
    (fakes.root / "here" / "runs").mkdir()
    (fakes.root / "here" / "runs" / "first").symlink_to(fakes.root)
    job(fakes, "76:9 76:10 76:11", "76 76 76", "--max-restarts=0", runs=3)
    assert requeued(fakes) == 3


def test_the_time_limit_saves_and_requeues(fakes):
    fakes.write("0.script", "waits")
    fakes.write("1.script", "waits")
    running = fakes.start("slurm.sbatch", *RUN, **JOB)
    for name in ("0.waits", "1.waits", "tasks"):
        fakes.wait_for(name)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=30) == 75, running.stderr.read()
    assert fakes.calls("scancel") == [["scancel", "--signal=TERM", "7"]]
    assert requeued(fakes) == 1


def test_the_dry_run_prints_the_commands_of_the_job(fakes):
    done = fakes.run("slurm.sbatch", "--dry-run", *RUN, "--config.a=it's")
    assert done.returncode == 0, done.stderr
    words = [shlex.split(line) for line in done.stdout.splitlines() if line[0] != "#"]
    assert [line[0] for line in words] == ["sbatch", "srun", "scancel", "scontrol"]
    assert words[0][2:] == [*RUN, "--config.a=it's"]
    assert words[1][-3:] == ["--config.a=it's", "--cluster", "slurm"]
    assert not fakes.calls()


def test_the_flags_of_sbatch_stand_before_the_first_command():
    """sbatch reads no #SBATCH line after the first line that is no comment."""
    lines = (PROJECT / "launch" / "slurm.sbatch").read_text().splitlines()
    first = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    flags = [line.split()[1] for line in lines[:first] if line.startswith("#SBATCH")]
    assert {"--ntasks-per-node=1", "--signal=B:TERM@120", "--requeue"} <= set(flags)


@pytest.mark.parametrize(
    "words, environment, message",
    [
        ([], JOB, "the config is missing"),
        (["mine.py"], JOB, "the work directory is missing"),
        (["mine.py", "--config.a=1"], JOB, "the work directory is missing"),
        (RUN, {}, "start it with sbatch"),
        (RUN, JOB | {"SLURM_SUBMIT_DIR": "/nowhere"}, "/nowhere/launch/common.sh is missing"),
        (["--max-restarts=many", *RUN], JOB, "--max-restarts=many is no whole number"),
    ],
)
def test_mistakes_are_told_in_one_line(fakes, words, environment, message):
    done = fakes.run("slurm.sbatch", *words, **environment)
    assert done.returncode == 2
    assert done.stderr.startswith(f"slurm.sbatch: {message}")
    assert done.stderr.count("\n") == 1
    asked_for_the_package = "import emergent_alignment"
    assert not [call for call in fakes.calls() if asked_for_the_package not in " ".join(call)]
