"""Runs code that a model wrote, in a process that can do little harm, within set limits.

What is prevented, by what, and what is not: docs/evaluation.md. The process itself is
sandboxed.py, which is started as a script and shares no memory with ours.
"""

import functools
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from emergent_alignment.errors import UserError

# From the strongest: the first that this system grants is in force.
LEVELS = {
    "namespaces": "no network (a namespace without one), other processes out of reach, and all "
    "file systems read-only but an empty folder in memory",
    "network": "no network (a namespace without one) and other processes out of reach; files are "
    "kept by their ordinary permissions alone",
    "plain": "network and new programs refused inside Python, which native code could go round; "
    "files are kept by their ordinary permissions alone",
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
_POLL_SECONDS = 0.02
_MOST_REPORT_BYTES = 65536
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
    """What is in force on this system: `level` of LEVELS, `processes` what bounds them."""

    level: str
    processes: str

    def text(self) -> str:
        """One sentence for a table or a page."""
        return f"{LEVELS[self.level]}; processes: {self.processes}"


def run_sandboxed(code: str, tests: list[str], limits: SandboxLimits) -> Outcome:
    """Run `code` as a module named `answer`, then each test in it, in order, until one fails.

    Only `passed` says that all tests came to their end: code that ends the process before does
    not pass. Code that is written to deceive may still report what it likes.
    """
    return _started(code, tests, limits, protection().level)[0]


@functools.cache
def protection() -> Protection:
    """The strongest level that this system grants, found by trying. Raises UserError where not
    even the weakest is."""
    problem = ""
    for level in LEVELS:
        outcome, processes = _started(_PROBE, [], SandboxLimits(), level)
        if outcome.outcome == "passed":
            return Protection(level, processes)
        problem = (outcome.output.strip().splitlines() or [outcome.detail])[-1]
    raise UserError(
        f"the sandbox cannot start here ({problem}); it needs Linux, and a Python that users "
        f"without rights may read: {_interpreter()}"
    )


def _started(code: str, tests: list[str], limits: SandboxLimits, level: str) -> tuple[Outcome, str]:
    """The outcome, and what bounds the number of processes ("" where it did not come so far)."""
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
            asked = {"limits": asdict(limits) | {"level": level, "user": user}}
            _write(process, json.dumps(asked | {"code": code, "tests": tests}))
            output, report, ended = _followed(process, reading, limits)
        finally:
            _kill_group(process)
            os.close(reading)
            process.stdout.close()
    seconds = time.monotonic() - began
    text = output.decode("utf-8", errors="replace")
    started, verdict = _reported(report, "processes"), _reported(report, "outcome")
    if verdict.get("outcome") in SANDBOX_OUTCOMES:
        outcome = Outcome(verdict["outcome"], str(verdict.get("detail", "")), text, seconds)
    elif not ended:
        outcome = Outcome("out of time", f"not done after {limits.seconds} s", text, seconds)
    else:
        why = f"exit code {process.returncode}, before its tests were done"
        outcome = Outcome("ended early", why, text, seconds)
    return outcome, str(started.get("processes", ""))


def _reported(report: bytes, key: str) -> dict:
    """The line of the report that has `key`, {} where there is none: an answer can write into
    the report, too, and what is no line of ours counts for nothing."""
    for line in report.splitlines():
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict) and key in fields:
            return fields
    return {}


def _write(process: subprocess.Popen, asked: str) -> None:
    try:
        process.stdin.write(asked.encode("utf-8", errors="surrogatepass"))
        process.stdin.close()
    except BrokenPipeError:
        pass  # it has ended; its exit code and output say why


def _followed(
    process: subprocess.Popen, report: int, limits: SandboxLimits
) -> tuple[bytes, bytes, bool]:
    """Read output and report until the process ends or its time is over: (the start of the
    output, the report, whether it ended by itself). Children may hold the pipes open for longer,
    so that the pipes' end is not waited for."""
    kept = {"output": b"", "report": b""}
    most = {"output": limits.output_bytes, "report": _MOST_REPORT_BYTES}
    deadline = time.monotonic() + limits.seconds
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
