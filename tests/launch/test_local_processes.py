"""local_processes.sh with a program whose every process does what its script says."""

import os
import re
import signal
import socket

import pytest

PROGRAM = r"""#!/usr/bin/env bash
number=${*: -1}
echo "words $*"
echo "devices $XLA_FLAGS on $JAX_PLATFORMS"
echo "trouble" >&2
case $(<"$FAKE_ROOT/$number.does") in
  waits)
    trap 'echo saved; exit 75' TERM INT
    touch "$FAKE_ROOT/$number.waits"
    for ((turn = 0; turn < 600; turn++)); do sleep 0.05; done
    ;;
  hangs)
    trap '' TERM
    touch "$FAKE_ROOT/$number.waits"
    for ((turn = 0; turn < 600; turn++)); do sleep 0.05; done
    ;;
  fails)
    until [[ -f $FAKE_ROOT/1.waits && -f $FAKE_ROOT/2.waits ]]; do sleep 0.05; done
    exit 3
    ;;
  *) exit "$(<"$FAKE_ROOT/$number.does")" ;;
esac
"""


@pytest.fixture
def local(fakes):
    """start(*what each process does, grace=…): the running script."""
    fakes.write("program", PROGRAM)
    (fakes.root / "program").chmod(0o755)

    def start(*does: str, flags: tuple[str, ...] = ("--grace", "0"), **environment: str):
        for number, what in enumerate(does):
            fakes.write(f"{number}.does", what)
        words = [*flags, str(len(does)), "--", "train", "--workdir", "a b"]
        environment = {"PYTHON": str(fakes.root / "program")} | environment
        return fakes.start("local_processes.sh", *words, **environment)

    return start


def finished(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_every_process_gets_its_number_and_lines_carry_it(local):
    process = local("0", "0", "0", flags=("--devices=4", "--port=23456"), XLA_FLAGS="--other=1")
    code, out, err = finished(process)
    assert code == 0, err
    for number in range(3):
        assert (
            f"[{number}] words -m emergent_alignment train --workdir a b --coordinator "
            f"127.0.0.1:23456 --num-processes 3 --process-id {number}\n"
        ) in out
        assert (
            f"[{number}] devices --other=1 --xla_force_host_platform_device_count=4 on cpu\n"
        ) in out
        assert f"[{number}] trouble\n" in err


def test_the_port_is_a_free_one_and_the_same_for_all(local):
    _, out, _ = finished(local("0", "0"))
    (port,) = set(re.findall(r"127\.0\.0\.1:(\d+)", out))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", int(port)))


@pytest.mark.parametrize(
    "codes, code",
    [("76 2", 2), ("75 1", 1), ("76 75", 75), ("137 76", 137), ("137 1", 1), ("0 76", 76)],
)
def test_the_gravest_code_is_returned(local, codes, code):
    assert finished(local(*codes.split(), flags=()))[0] == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_process(fakes, local, number):
    process = local("waits", "waits")
    fakes.wait_for("0.waits")
    fakes.wait_for("1.waits")
    process.send_signal(number)
    code, out, _ = finished(process)
    assert code == 75
    assert "[0] saved\n" in out and "[1] saved\n" in out


def test_the_rest_is_ended_when_one_fails_and_what_ignores_that_is_killed(local):
    code, out, err = finished(local("fails", "waits", "hangs", flags=("--grace=1",)))
    assert code == 3
    assert "[1] saved\n" in out
    assert "process 2 ended with exit code 137" in err


def test_a_killed_process_ends_the_run(fakes, local):
    process = local("waits", "waits")
    fakes.wait_for("0.waits")
    fakes.wait_for("1.waits")
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(children) as listing:
        found = [int(child) for child in listing.read().split()]
    programs = [child for child in found if "program" in open(f"/proc/{child}/cmdline").read()]
    os.kill(programs[0], signal.SIGKILL)
    assert finished(process)[0] == 137


def test_the_dry_run_prints_a_command_a_process(fakes, local):
    code, out, _ = finished(local("0", "0", flags=("--dry-run", "--port", "4000")))
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith(
        "-m emergent_alignment train --workdir 'a b' --coordinator 127.0.0.1:4000 "
        "--num-processes 2 --process-id 1"
    )
    assert "JAX_PLATFORMS=cpu" in lines[0]


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "say how many processes"),
        (["0", "--", "train"], "say how many processes"),
        (["2"], "the command is missing"),
        (["2", "train"], "the command is missing"),
        (["--grace", "2", "--", "train"], "say how many processes"),
        (["--devices", "--port", "1", "2", "--", "train"], "--devices needs a value"),
        (["--devices=x", "2", "--", "train"], "--devices=x is no whole number"),
        (["--device=2", "2", "--", "train"], "unknown flag --device; see --help"),
    ],
)
def test_mistakes_are_told_in_one_line(fakes, words, message):
    done = fakes.run("local_processes.sh", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"local_processes.sh: {message}")
    assert done.stderr.count("\n") == 1
