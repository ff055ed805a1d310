"""gke_xpk.sh with fakes of xpk, kubectl and gcloud."""

import re

import pytest
from fake_commands import commands

PLACE = ["--project=p", "--zone=z", "--cluster=c", "--name=first"]
UP = ["up", *PLACE, "--bucket=b", "--tpu-type=v5litepod-16", "--poll=0"]


def subcommands(fakes) -> list[str]:
    return [call[2] for call in fakes.calls("xpk workload")]


def test_up_runs_what_the_dry_run_prints(fakes):
    fakes.write("answers", "0")
    printed = fakes.run("gke_xpk.sh", *UP, "--dry-run", "--", "--config.a=it's (1, 2)")
    assert printed.returncode == 0, printed.stderr
    assert not fakes.calls()
    done = fakes.run("gke_xpk.sh", *UP, "--", "--config.a=it's (1, 2)")
    assert done.returncode == 0, done.stderr
    planned = commands(printed.stdout.splitlines())
    assert fakes.calls() == [words for words in planned if words[0] in ("gcloud", "xpk")]
    assert "done, in gs://b/first" in done.stderr


def test_without_an_image_the_code_is_staged_and_installed(fakes):
    fakes.write("answers", "0")
    (fakes.root / "here" / "mine.py").write_text("rows = 1")
    fakes.run("gke_xpk.sh", *UP, "--", "--config=mine.py")
    (create,) = fakes.calls("workload create")
    (stage,) = [word.partition("=")[2] for word in create if word.startswith("--script-dir")]
    staged = fakes.root / "temporary" / "emergent-alignment-first"
    assert stage == str(staged)
    assert (staged / "mine.py").exists() and (staged / "emergent_alignment/losses.py").exists()
    assert (
        "--command=pip install --quiet --constraint constraints.txt '.[tpu]' && exec python3 -m "
        "emergent_alignment train --config=mine.py --workdir /bucket/first --cluster tpu" in create
    )
    assert "--storage=b" in create
    assert "--restart-on-exit-codes=1,69,75,76" in create


def test_a_bucket_is_made_a_storage_that_can_be_written(fakes):
    printed = fakes.run("gke_xpk.sh", "attach", *PLACE[:3], "--bucket=gs://b", "--dry-run")
    assert fakes.run("gke_xpk.sh", "attach", *PLACE[:3], "--bucket=gs://b").returncode == 0
    assert fakes.calls() == commands(printed.stdout.splitlines())
    (attach,) = fakes.calls("storage attach b")
    for word in ("--mount-point=/bucket", "--readonly=false", "--project=p", "--cluster=c"):
        assert word in attach
    (options,) = [word for word in attach if word.startswith("--mount-options=")]
    assert "implicit-dirs,rename-dir-limit=200000," in options


def test_the_environment_and_further_words_reach_xpk(fakes):
    fakes.write("answers", "0")
    given = ["--env=XLA_FLAGS=--a --b", "--env", "PATH", "--more=--priority=high"]
    fakes.run("gke_xpk.sh", *UP, *given)
    (create,) = fakes.calls("workload create")
    assert "--env=XLA_FLAGS=--a --b" in create and "--priority=high" in create
    assert any(word.startswith("--env=PATH=/") for word in create)


def test_an_image_is_used_as_it_is(fakes):
    fakes.write("answers", "0")
    fakes.run("gke_xpk.sh", *UP, "--image=gcr.io/p/mine")
    (create,) = fakes.calls("workload create")
    assert "--docker-image=gcr.io/p/mine" in create
    assert not any(word.startswith(("--script-dir", "--base-docker-image")) for word in create)
    assert any(word.startswith("--command=exec python3") for word in create)


def test_a_mistake_ends_it_with_its_code(fakes):
    fakes.write("answers", "125:10")
    fakes.write("pods", "143\n2\n76\n")
    done = fakes.run("gke_xpk.sh", *UP)
    assert done.returncode == 2
    assert subcommands(fakes) == ["create", "list"]


def test_a_lost_run_goes_on_while_it_brings_checkpoints(fakes):
    fakes.write("answers", "125:10 125:20 125")
    fakes.write("pods", "76\n143\n\n")
    done = fakes.run("gke_xpk.sh", *UP)
    assert done.returncode == 143
    assert subcommands(fakes) == ["create", "list", "delete"] * 2 + ["create", "list"]


def test_a_workload_that_is_not_there_yet_is_waited_for(fakes):
    fakes.write("answers", "1 0")
    assert fakes.run("gke_xpk.sh", *UP).returncode == 0
    assert subcommands(fakes) == ["create", "list", "list"]


def test_a_failed_creation_ends_it(fakes):
    fakes.write("fail", "workload create")
    done = fakes.run("gke_xpk.sh", *UP)
    assert done.returncode == 1
    assert "ERROR: this one fails" in done.stderr
    assert subcommands(fakes) == ["create"]


def test_logs_and_delete(fakes):
    fakes.write("answers", "0")
    assert fakes.run("gke_xpk.sh", "logs", *PLACE).returncode == 0
    assert fakes.run("gke_xpk.sh", "delete", *PLACE).returncode == 0
    (logs,) = fakes.calls("kubectl logs")
    assert "--selector=xpk.google.com/workload=first" in logs
    assert "--workload=first" in fakes.calls("workload delete")[0]


FLAGS = ["--project", "--zone", "--cluster", "--name", "--bucket", "--tpu-type"]


@pytest.mark.parametrize("flag", FLAGS)
def test_each_required_setting_is_asked_for_in_one_line(fakes, flag):
    words = [word for word in UP if not word.startswith(flag)]
    done = fakes.run("gke_xpk.sh", *words)
    assert done.returncode == 2
    assert re.fullmatch(rf"gke_xpk\.sh: {flag} is missing, e\.g\. {flag}=\S+\n", done.stderr)
    assert not fakes.calls()
