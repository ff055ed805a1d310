"""Runs code that a model wrote, in a process that can do little harm, within set limits, and its
tests in another, which the first cannot reach.

What is prevented, by what, and what is not: docs/evaluation.md. The processes are
sandboxed.py, which is started as a script and shares no memory with ours.
"""

import functools
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.coding.confinement import LANDLOCK, SECCOMP, UNBOUNDED

# From the strongest: the first that this system grants is in force.
LEVELS = {
    "namespaces": "no network (a namespace without one), other processes out of reach and out of "
    "sight, and no files but the interpreter's, read-only, and an empty folder in memory",
    "network": "no network (a namespace without one), other processes out of reach",
    "plain": "neither network nor processes of its own",
}
SANDBOX_OUTCOMES = (
    "passed",
    "failed a test",
    "failed to run",
    "out of time",
    "out of memory",
    "ended early",
)
_SCRIPT = Path(__file__).with_name("sandboxed.py")
_FIRST_USER = 2_000_000_000  # users that no system gives to anybody
_MOST_SECONDS_TO_START = 60
_POLL_SECONDS = 0.02
_MOST_REPORT_BYTES = 65536
_ADDED = {
    LANDLOCK: "files out of reach but the interpreter's and its own folder's (Landlock)",
    SECCOMP: "calls to other processes, mounts and sockets that are paths refused (seccomp)",
}
_PROBE = "import random, socket, unicodedata"  # of the library's own files, and of compiled ones


@dataclass(frozen=True)
class SandboxLimits:
    """What a run may use.

    seconds       of wall time for code and tests together; CPU time a second more
    memory_bytes  address space of each process
    processes     processes and threads at once, its own first one included
    folder_bytes  of files in the working folder
    output_bytes  of stdout and stderr together that are kept; what is more is thrown away
    """

    seconds: int = 5
    memory_bytes: int = 512 * 2**20
    processes: int = 16
    folder_bytes: int = 32 * 2**20
    output_bytes: int = 4096


@dataclass(frozen=True)
class Outcome:
    """What came of one run: `outcome` is one of OUTCOMES, `detail` says where and why, `output`
    is the start of what it printed, `seconds` its wall time."""

    outcome: str
    detail: str
    output: str
    seconds: float


@dataclass(frozen=True)
class Protection:
    """What is in force on this system: `level` of LEVELS, `processes` what bounds them, `in_force`
    what the kernel refuses beside it (landlock, seccomp)."""

    level: str
    processes: str
    in_force: tuple[str, ...] = ()

    def text(self) -> str:
        """One sentence for a table or a page."""
        added = [_ADDED[name] for name in self.in_force]
        not_held = "not held off: " + ", ".join(self.not_held_off())
        level = f"level {self.level}: {LEVELS[self.level]}"
        return "; ".join([level, *added, f"processes: {self.processes}", not_held])

    def not_held_off(self) -> list[str]:
        """What an answer that is written to do harm could still do, most harmful first."""
        own_files, plain = self.level == "namespaces", self.level == "plain"
        files, calls = own_files or LANDLOCK in self.in_force, SECCOMP in self.in_force
        open_ways = {
            "reading and writing what the user may (the home folder, and at plain the environment "
            "of each process of the user's)": not files,
            "network, signals, programs and more processes by native code": plain and not calls,
            "sockets that are paths": not own_files and not calls,
            "calls that reach more of the kernel (new namespaces, bpf, io_uring)": not calls,
            "filling the disk with one file after another": not own_files,
            "any number of processes": self.processes == UNBOUNDED,
            "bugs of the kernel's": True,
        }
        return [text for text, holds in open_ways.items() if holds]


def run_sandboxed(
    code: str, tests: list[str], limits: SandboxLimits, *, entry_point: str = ""
) -> Outcome:
    """Run `code` as a module named `answer`, and in another process each test, in order, until one
    fails. Tests see the answer's names; what they get from it are plain values, and stand-ins for
    objects that stay with the answer. A name of Python's is the answer's where it is the
    `entry_point`.

    Only `passed` says that all tests came to their end: code that ends its process before does
    not pass, and code that is written to deceive has neither the tests nor the verdict in reach.
    """
    return _started(code, tests, limits, protection().level, entry_point)[0]


@functools.cache
def protection() -> Protection:
    """The strongest level that this system grants, found by trying. Raises UserError where not
    even the weakest is."""
    problem = ""
    for level in LEVELS:
        outcome, given = _started(_PROBE, [], SandboxLimits(), level)
        if outcome.outcome == "passed" and given is not None:
            return given
        problem = (outcome.output.strip().splitlines() or [outcome.detail])[-1]
    raise UserError(
        f"the sandbox cannot start here ({problem}); it needs Linux, and a Python that users "
        f"without rights may read: {_interpreter()}"
    )


def _started(
    code: str, tests: list[str], limits: SandboxLimits, level: str, entry_point: str = ""
) -> tuple[Outcome, Protection | None]:
    """The outcome, and what was in force (None where it did not come so far)."""
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder:
        began = time.monotonic()
        process = subprocess.Popen(
            [_interpreter(), "-I", "-S", "-X", "utf8", _SCRIPT, str(writing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin"},
            pass_fds=[writing],
            start_new_session=True,
        )
        os.close(writing)
        try:
            user = _FIRST_USER + process.pid
            asked = {"code": code, "tests": tests, "entry_point": entry_point}
            _write(process, asdict(limits) | {"level": level, "user": user}, asked)
            output, report, ended = _followed(process, reading, limits)
        finally:
            _kill_group(process)
            os.close(reading)
            process.stdout.close()
    seconds = time.monotonic() - began
    text = output.decode("utf-8", errors="replace")
    started, verdict = _reported(report, "processes"), _reported(report, "outcome")
    if verdict:
        detail = verdict["detail"].encode("utf-8", "replace").decode()  # an answer says anything
        outcome = Outcome(verdict["outcome"], detail, text, seconds)
    elif not ended:
        outcome = Outcome("out of time", f"not done after {limits.seconds} s", text, seconds)
    else:
        why = f"exit code {process.returncode}, before its tests were done"
        outcome = Outcome("ended early", why, text, seconds)
    if not started:
        return outcome, None
    return outcome, Protection(level, started["processes"], tuple(started["in_force"]))


def _reported(report: bytes, key: str) -> dict:
    """The line of the report that has `key`, {} where there is none."""
    lines = [json.loads(line) for line in report.splitlines() if line.endswith(b"}")]
    return next((fields for fields in lines if key in fields), {})


def _write(process: subprocess.Popen, *frames: dict) -> None:
    """Each with its length before it: the answer's process must not read on to the tests."""
    try:
        for frame in frames:
            text = json.dumps(frame).encode()
            process.stdin.write(struct.pack("=Q", len(text)) + text)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it has ended; its exit code and output say why


def _followed(
    process: subprocess.Popen, report: int, limits: SandboxLimits
) -> tuple[bytes, bytes, bool]:
    """Read output and report until the process ends or its time is over, which begins where the
    sandbox reports that it stands: (the start of the output, the report, whether it ended by
    itself). Children may hold the pipes open for longer,
    so that the pipes' end is not waited for."""
    kept = {"output": b"", "report": b""}
    most = {"output": limits.output_bytes, "report": _MOST_REPORT_BYTES}
    deadline = time.monotonic() + _MOST_SECONDS_TO_START
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, "output")
        selector.register(report, selectors.EVENT_READ, "report")
        while True:
            ended = process.poll() is not None  # before what is there is read: nothing is lost
            for key, _ in selector.select(0 if ended else _POLL_SECONDS):
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                room = most[key.data] - len(kept[key.data])
                if key.data == "report" and not kept["report"]:
                    deadline = time.monotonic() + limits.seconds
                kept[key.data] += chunk[: max(room, 0)]
            if ended or time.monotonic() > deadline:
                return kept["output"], kept["report"], ended
            if not selector.get_map():
                time.sleep(_POLL_SECONDS)


def _kill_group(process: subprocess.Popen) -> None:
    """Kill the process with all that it started in its group; where there is a namespace of
    processes, what left the group dies with the namespace's first process."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # all have ended; macOS says the second of processes that wait to be collected
    process.wait()


def _interpreter() -> str:
    """The Python itself, not a virtual environment's link to it: answers see the standard
    library alone."""
    return os.path.realpath(sys.executable)
