"""What holds for all scripts of launch/: shellcheck, --help, and the examples of docs/launch.md."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_commands import LAUNCH, PROJECT

SCRIPTS = ["tpu_pod.sh", "tpu_worker.sh", "gke_xpk.sh", "slurm.sbatch", "local_processes.sh"]


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=Path(sys.executable).parent) or "shellcheck"
    files = [str(path) for path in sorted(LAUNCH.iterdir())]
    assert len(files) == len(SCRIPTS) + 1  # common.sh
    done = subprocess.run(
        [shellcheck, "-x", *files], capture_output=True, text=True, cwd=PROJECT, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_teaches_with_examples(fakes, script):
    done = fakes.run(script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ")
    assert re.search(r"^examples?:\n  \S", done.stdout, re.MULTILINE)
    assert not fakes.calls()


def test_the_code_of_several_hosts_is_that_of_the_gravest():
    cases = {
        "0 0": 0, "0 76": 76, "76 75": 75, "75 69": 69, "69 139": 139, "139 1": 1, "1 2": 2,
        "2 76 75 0": 2,
    }  # fmt: skip
    lines = "; ".join(f"worst {codes}" for codes in cases)
    assert sourced(lines).split() == [str(code) for code in cases.values()]


def test_whatever_is_no_mistake_is_worth_a_restart():
    codes = range(256)
    said = sourced("; ".join(f"worth_restarting {code} && echo {code}" for code in codes))
    assert [*map(int, said.split())] == [code for code in codes if code not in (0, 2)]


def test_a_restart_that_brings_nothing_waits_twice_as_long_as_the_last():
    said = sourced("; ".join(f"RESTARTS={n}; backoff 30" for n in range(8)))
    assert [*map(int, said.split())] == [30, 30, 60, 120, 240, 480, 600, 600]


def test_the_newest_checkpoint_is_the_highest_number(tmp_path):
    assert sourced(f"newest_checkpoint {tmp_path}") == "-1\n"
    for name, time in {"9": 17, "10": 17, "11": "null", "12.orbax-checkpoint-tmp": 17}.items():
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        record = tmp_path / "checkpoints" / name / "_CHECKPOINT_METADATA"
        record.write_text(f'{{"metrics": {{}}, "commit_timestamp_nsecs": {time}, "custom": {{}}}}')
    assert sourced(f"newest_checkpoint {tmp_path}") == "10\n"


def test_the_examples_of_the_page_are_what_the_dry_runs_print(fakes):
    """Each `$ command` of docs/launch.md is followed by what it prints."""
    page = (PROJECT / "docs" / "launch.md").read_text()
    examples = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:.+\n)*)```$", page, re.MULTILINE)
    assert len(examples) == 4
    environment = {**fakes.environment, "TMPDIR": "/tmp"}
    for command, printed in examples:
        assert "--dry-run" in command
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.stdout == printed, f"{command}\n{done.stderr}"
    assert not fakes.calls()


def sourced(lines: str) -> str:
    """What bash prints for these lines after it has read common.sh."""
    script = f"set -euo pipefail; source {LAUNCH / 'common.sh'}; {lines}"
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, timeout=30
    ).stdout
