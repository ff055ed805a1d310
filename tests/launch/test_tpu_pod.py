"""tpu_pod.sh with a fake gcloud whose workers are folders: the worker's script runs for real."""

import re
import signal

import pytest
from fake_commands import commands

PLACE = ["--project=p", "--zone=z", "--name=first"]
QUICK = [
    "--bucket=b", "--accelerator-type=v5litepod-16", "--poll=0", "--restart-wait=0"
]  # fmt: skip
UP = ["up", *PLACE, *QUICK]


@pytest.fixture
def pod(fakes):
    """Two workers that finish at once, on TPUs that are there at once."""
    for worker in ("t-w-0", "t-w-1"):
        (fakes.root / worker).mkdir()
        fakes.write(f"{worker}.script", "0")
    fakes.write("lives", "ACTIVE\n" * 9)
    yield fakes
    fakes.write("go", "")  # what a test left waiting ends


def scripts(pod, first: str, second: str) -> None:
    pod.write("t-w-0.script", first)
    pod.write("t-w-1.script", second)


def steps(pod) -> str:
    """The calls that change something, in order, a letter each: Create, Delete, Install, sTart,
    stOp. (A retried command is one more letter.)"""
    letters = {
        "resources create": "C", "resources delete": "D", "worker.sh install": "I",
        "worker.sh start": "T", "worker.sh stop": "O",
    }  # fmt: skip
    return "".join(
        next(letter for part, letter in letters.items() if part in " ".join(call))
        for call in pod.calls(*letters)
        if call[0] == "gcloud"
    )


def test_up_waits_installs_trains_and_prefixes_lines(pod):
    pod.write("lives", "WAITING_FOR_RESOURCES PROVISIONING ACTIVE\n")
    done = pod.run("tpu_pod.sh", *UP)
    assert done.returncode == 0, done.stderr
    assert steps(pod) == "CIT"
    assert "\n[0] training on t-w-0 " in done.stdout
    assert "\n[1] training on t-w-1 " in done.stdout
    assert "first is WAITING_FOR_RESOURCES" in done.stderr
    assert "done, in gs://b/first" in done.stderr


def test_up_runs_what_the_dry_run_prints(pod):
    printed = pod.run("tpu_pod.sh", *UP, "--dry-run")
    assert printed.returncode == 0, printed.stderr
    assert not pod.calls()
    planned = [words for words in commands(printed.stdout.splitlines()) if words[0] == "gcloud"]
    pod.run("tpu_pod.sh", *UP)
    ran = [call for call in pod.calls() if call[0] == "gcloud"]
    describe = next(words for words in planned if "describe" in words)
    assert [words for words in ran if words != describe] == [
        words for words in planned if words != describe
    ]
    assert describe in ran


def test_the_program_gets_its_flags_as_they_were_written(pod):
    flags = ["--config", "mine.py", "--config.a=it's (1, 2)"]
    (pod.root / "here" / "mine.py").write_text("rows = 1")
    assert pod.run("tpu_pod.sh", *UP, "--", *flags).returncode == 0
    words = ["-m", "emergent_alignment", "train", *flags, "--cluster", "tpu", "--workdir"]
    started = [call[1:] for call in pod.calls("emergent_alignment train")]
    for worker in ("t-w-0", "t-w-1"):
        folder = pod.root / worker / "emergent-alignment-bucket" / "first"
        assert [*words, str(folder)] in started
        code = pod.root / worker / "emergent-alignment"
        assert (code / "mine.py").read_text() == "rows = 1"
        assert (code / "emergent_alignment" / "losses.py").exists()


def test_every_worker_mounts_the_bucket_before_it_trains(pod):
    assert pod.run("tpu_pod.sh", *UP).returncode == 0
    mounts = pod.calls("gcsfuse")
    assert {call[-1] for call in mounts} == {
        str(pod.root / worker / "emergent-alignment-bucket") for worker in ("t-w-0", "t-w-1")
    }
    for call in mounts:
        assert call[-2] == "b" and "--rename-dir-limit=200000" in call
    order = [call[0] for call in pod.calls("gcsfuse", "emergent_alignment train")]
    assert order[0] == "gcsfuse" and order.count("gcsfuse") == 2


def test_a_bucket_that_cannot_be_mounted_is_tried_again(pod):
    """It failed the first time alone."""
    pod.write("fail", "gcsfuse")
    done = pod.run("tpu_pod.sh", *UP, "--max-restarts=1")
    assert done.returncode == 0 and "starting again after exit code 69" in done.stderr
    assert "gs://b cannot be mounted: is it there" in done.stdout
    assert steps(pod) == "CITOIT"


@pytest.mark.parametrize("flags, spot", [([], False), (["--spot"], True)])
def test_spot_is_asked_for_only_when_it_is(pod, flags, spot):
    pod.run("tpu_pod.sh", "create", *PLACE, *QUICK, *flags)
    (create,) = pod.calls("resources create")
    assert ("--spot" in create) == spot
    assert "--runtime-version=v2-alpha-tpuv5-lite" in create


def test_preempted_tpus_are_deleted_and_created_again(pod):
    pod.write("lives", "ACTIVE\nWAITING_FOR_RESOURCES ACTIVE\n")
    scripts(pod, "0 0", "preempted 0")
    done = pod.run("tpu_pod.sh", *UP)
    assert done.returncode == 0, done.stderr
    assert steps(pod) == "CITDCIT"
    assert "the TPUs were taken away" in done.stderr


def test_tpus_that_cannot_be_had_are_asked_for_again_but_not_for_ever(pod):
    pod.write("lives", "FAILED\nACTIVE\n")
    assert pod.run("tpu_pod.sh", *UP).returncode == 0
    assert steps(pod) == "CDCIT"


def test_asking_in_vain_ends(pod):
    pod.write("lives", "FAILED\n" * 4)
    done = pod.run("tpu_pod.sh", *UP, "--max-restarts=2")
    assert done.returncode == 76
    assert steps(pod) == "CDCDCD"
    assert "no new checkpoint in 2 restarts" in done.stderr


def test_a_run_that_can_go_on_is_started_again_on_all_workers(pod):
    scripts(pod, "75 76 0", "75 137 0")  # asked to stop; killed, and the other lost it
    done = pod.run("tpu_pod.sh", *UP)
    assert done.returncode == 0, done.stderr
    assert steps(pod) == "CITOITOIT"


@pytest.mark.parametrize(
    "first, second, code, course",
    [("76", "2", 2, "CITD"), ("1 1", "76 76", 1, "CITOITD")],
    ids=["mistake", "bug"],
)
def test_a_mistake_ends_it_and_a_bug_once_it_brings_nothing(pod, first, second, code, course):
    scripts(pod, first, second)
    done = pod.run("tpu_pod.sh", *UP, "--delete-when-done", "--max-restarts=1")
    assert done.returncode == code
    assert steps(pod) == course
    assert f"the run ended with exit code {code}" in done.stderr


def test_what_companies_ask_for_reaches_gcloud(pod):
    flags = ["--reserved", "--internal-ips", "--iap", "--node-count=2", "--service-account=s"]
    flags += ["--labels=team=t", "--data-disk=source=d,mode=read-only", "--more=--network=mine"]
    pod.run("tpu_pod.sh", "create", *PLACE, *QUICK, *flags)
    (create,) = pod.calls("resources create")
    expected = {"--reserved", "--internal-ips", "--node-count=2", "--service-account=s"}
    expected |= {"--labels=team=t", "--data-disk=source=d,mode=read-only", "--network=mine"}
    assert expected <= set(create) and not any(word.startswith("--node-id") for word in create)
    line = pod.run("tpu_pod.sh", "start", *PLACE, *flags, "--bucket=b", "--env=A=b c", "--dry-run")
    assert "gcloud alpha compute tpus queued-resources ssh" in line.stdout
    assert "--node=all --tunnel-through-iap" in line.stdout and "A=b c" in line.stdout


@pytest.mark.parametrize(
    "flag, said",
    [("--accelerator-type=tpu7x-16", "no TPU7x"), ("--env=NOT_SET_HERE", "is not set here")],
)
def test_what_cannot_work_is_refused_before_anything_is_asked_for(pod, flag, said):
    done = pod.run("tpu_pod.sh", "create", *PLACE, *QUICK, flag)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not pod.calls()


def test_restarts_without_a_new_checkpoint_are_limited(pod):
    scripts(pod, "76 76 76", "0 0 0")
    done = pod.run("tpu_pod.sh", *UP, "--max-restarts=1")
    assert done.returncode == 76
    assert steps(pod) == "CITOIT"


def test_restarts_with_new_checkpoints_are_not(pod):
    scripts(pod, "76:9 76:10 0", "0 0 0")
    done = pod.run("tpu_pod.sh", *UP, "--max-restarts=0")
    assert done.returncode == 0, done.stderr


def test_a_dropped_connection_leaves_the_run_alone(pod):
    scripts(pod, "waits", "0")
    pod.write("fail", "worker.sh follow")
    up = pod.start("tpu_pod.sh", *UP)
    pod.wait_for("t-w-0.waits")
    pod.write("go", "")
    assert up.wait(timeout=30) == 0, up.stderr.read()
    assert steps(pod) == "CIT"


def test_up_follows_a_run_that_is_there(pod):
    scripts(pod, "waits", "waits")
    for command in ("create", "install", "start"):
        flags = [*PLACE, *QUICK]
        assert pod.run("tpu_pod.sh", command, *flags).returncode == 0
    pod.wait_for("t-w-1.waits")
    up = pod.start("tpu_pod.sh", *UP)
    assert " gs://b/first train --cluster tpu" in up.stdout.readline()
    pod.write("go", "")
    assert up.wait(timeout=30) == 0
    assert steps(pod) == "CIT"


def test_start_twice_is_once_and_another_run_is_refused(pod):
    scripts(pod, "waits", "waits")
    flags = [*PLACE, *QUICK]
    for command in ("create", "install", "start", "start"):
        assert pod.run("tpu_pod.sh", command, *flags).returncode == 0
    other = pod.run("tpu_pod.sh", "start", *flags, "--", "--config.a=1")
    assert other.returncode == 2
    assert other.stderr.splitlines()[0].endswith("another run is alive here: stop it first")
    pod.wait_for("t-w-1.waits")
    assert pod.run("tpu_pod.sh", "stop", *PLACE).returncode == 0
    assert len(pod.calls("emergent_alignment train")) == 2
    for worker in ("t-w-0", "t-w-1"):
        assert (pod.root / worker / "emergent-alignment-run/exit_code").read_text() == "75\n"


def test_ctrl_c_leaves_the_run_alone(pod):
    scripts(pod, "waits", "waits")
    up = pod.start("tpu_pod.sh", *UP)
    pod.wait_for("t-w-1.waits")
    up.send_signal(signal.SIGINT)
    pod.write("go", "")  # the shell sees the signal when the ssh at hand has ended
    assert up.wait(timeout=30) == 130
    assert "the run goes on" in up.stderr.read()
    assert "O" not in steps(pod)


def test_gcloud_errors_are_shown_and_end_it(pod):
    pod.write("fail", "queued-resources create")
    done = pod.run("tpu_pod.sh", *UP)
    assert done.returncode == 1
    assert "ERROR: this one fails" in done.stderr
    assert steps(pod) == "C"


def test_a_passing_gcloud_error_is_tried_again(pod):
    pod.write("fail", "queued-resources describe")
    assert pod.run("tpu_pod.sh", *UP).returncode == 0


def test_wait_ends_where_the_tpus_will_not_come(pod):
    pod.write("lives", "WAITING_FOR_RESOURCES FAILED\n")
    pod.run("tpu_pod.sh", "create", *PLACE, *QUICK)
    done = pod.run("tpu_pod.sh", "wait", *PLACE, "--poll=0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "tpu_pod.sh: first is FAILED"


@pytest.mark.parametrize("config", ["configs/typo.py", "/elsewhere/mine.py"])
def test_a_config_that_cannot_travel_is_told_before_anything_costs(pod, config):
    done = pod.run("tpu_pod.sh", *UP, "--", "--config", config)
    assert done.returncode == 2
    assert done.stderr == (
        f"tpu_pod.sh: --config {config}: there is no such file below this folder, and no config of "
        "that name\n"
    )
    assert not pod.calls()


@pytest.mark.parametrize(
    "flag", ["--project", "--zone", "--name", "--bucket", "--accelerator-type"]
)
def test_each_required_setting_is_asked_for_in_one_line(pod, flag):
    words = [word for word in UP if not word.startswith(flag)]
    done = pod.run("tpu_pod.sh", *words)
    assert done.returncode == 2
    assert re.fullmatch(rf"tpu_pod\.sh: {flag} is missing, e\.g\. {flag}=\S+\n", done.stderr)
    assert not pod.calls()
