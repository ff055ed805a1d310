"""Trials of the code sandbox: what answers try that are written to do harm, at every level that the
system offers, as root and as a user; and that honest answers pass and wrong ones fail."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from code_answers import HONEST

from campaign.sandbox_probes import FAKED_TESTS, PROBES, REACHED
from campaign.trial import Trial
from emergent_alignment.evaluation.coding import sandbox
from emergent_alignment.evaluation.coding.sandbox import LANDLOCK, LEVELS, SECCOMP, SandboxLimits

TRIALS = 900
LIMITS = SandboxLimits(seconds=3, memory_bytes=256 * 2**20, folder_bytes=4 * 2**20, processes=8)
# For what is to end by itself, on a machine that does other things, too.
PATIENT = SandboxLimits(seconds=30)
NOBODY, TOKEN, VARIABLE = 65534, "do-not-tell-4711", "SANDBOX_TRIAL_KEY"
_REPOSITORY = Path(__file__).resolve().parents[2]
Case = tuple[str, str, str, str]  # user, level, kind, name


def trials(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """`count` of all cases, drawn by `seed`; all of them where there are no more."""
    cases = [
        (user, level, kind, name)
        for user in (("root", "user") if os.geteuid() == 0 else ("user",))
        for level in LEVELS
        for kind, names in (PROBES | {"honest answers": HONEST}).items()
        for name in names
    ]
    chosen = cases if count >= len(cases) else random.Random(seed).sample(cases, count)
    for user in dict.fromkeys(case[0] for case in chosen):
        yield from _in_child(user, [case for case in chosen if case[0] == user])


def _in_child(user: str, cases: list[Case]) -> Iterator[Trial]:
    """In a process of that user's; each trial comes as it ends."""
    home = Path(tempfile.mkdtemp(prefix="sandbox-trials-"))
    (home / "secret.txt").write_text(TOKEN)
    home.chmod(0o755)
    _copy_program(home / "program")
    if os.geteuid() == 0 and user == "user":
        for path in (home, home / "secret.txt"):
            os.chown(path, NOBODY, NOBODY)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _as_user(user, cases, home, writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        for line in lines:
            yield Trial(**json.loads(line))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    shutil.rmtree(home, ignore_errors=True)
    if code:
        yield Trial("sandbox", "the trials themselves", "fault", f"as {user}: exit code {code}")


def _copy_program(place: Path) -> None:
    """What runs inside the sandbox, where a user without rights can read it."""
    for name in ("__init__.py", "evaluation/__init__.py", "evaluation/coding"):
        source, target = (
            _REPOSITORY / "emergent_alignment" / name,
            place / "emergent_alignment" / name,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def _as_user(user: str, cases: list[Case], home: Path, writing: int) -> None:
    code = 1
    try:
        if os.geteuid() == 0 and user == "user":
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        program = _program()
        sandbox._interpreter = lambda: program
        script = sandbox._SCRIPT.relative_to(_REPOSITORY)
        sandbox._SCRIPT = home / "program" / script
        with _victims(home, program) as words:
            levels = {level: _granted(level) for level in LEVELS}
            for case in cases:
                trial = _tried(case, levels[case[1]], words)
                if trial is not None:
                    os.write(writing, json.dumps(trial.record()).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _program() -> str:
    """A Python that this user may run: one in root's home is not."""
    for program in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        if os.access(program, os.X_OK):
            return program
    raise FileNotFoundError("there is no Python that an ordinary user may run")


@contextlib.contextmanager
def _victims(home: Path, program: str) -> Iterator[dict[str, str]]:
    """What there is to be reached: a process with a key in its environment, sockets, files."""
    sock, name = str(home / "agent.sock"), f"sandbox-victim-{os.getpid()}"
    listeners = []
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_UNIX, sock),
        (socket.AF_UNIX, "\0" + name),
    ):
        listeners.append(socket.socket(family))
        listeners[-1].bind(address)
        listeners[-1].listen(64)
        threading.Thread(target=_accept, args=(listeners[-1],), daemon=True).start()
    with open(home / "code.py", "w") as file:
        file.write("import time\ntime.sleep(3600)\n")
    environment = {VARIABLE: TOKEN, "SSH_AUTH_SOCK": sock}
    os.environ.update(environment)
    victim = subprocess.Popen([program, "code.py"], cwd=home, env=environment)
    try:
        yield {
            "pid": str(victim.pid), "home": str(home), "sock": sock, "name": name,
            "port": str(listeners[0].getsockname()[1]), "token": TOKEN, "variable": VARIABLE,
            "repository": str(_REPOSITORY),
        }  # fmt: skip
    finally:
        victim.kill()
        victim.wait()


def _accept(listener: socket.socket) -> None:
    while True:
        listener.accept()[0].close()


def _granted(level: str) -> sandbox.Protection | None:
    return sandbox._started(sandbox._PROBE, [], PATIENT, level)[1]


def _tried(case: Case, granted: sandbox.Protection | None, words: dict) -> Trial | None:
    """What came of it; None where the level is not offered, or says it does not hold that off."""
    user, level, kind, name = case
    if granted is None or not _held_off(kind, granted):
        return None
    if kind == "honest answers":
        return _honest(name, level)
    code = PROBES[kind][name]
    if kind != "fake a pass":
        for word, value in words.items():
            code = code.replace(f"{{{word}}}", value)
        code = code.replace("{{", "{").replace("}}", "}")
    tests = list(FAKED_TESTS) if kind == "fake a pass" else []
    found = sandbox._started(code, tests, LIMITS, level)[0]
    detail = f"{name}, {level}, as {user}: {found.outcome} {found.detail} {found.output[:100]!r}"
    if kind == "fake a pass":
        return Trial("sandbox", kind, "silent" if found.outcome == "passed" else "right", detail)
    # Above the time of the run: what a busy machine takes to start and to end processes.
    bad = REACHED in found.output or found.seconds > LIMITS.seconds + 60
    return Trial("sandbox", kind, "fault" if bad else "right", detail if bad else "")


def _held_off(kind: str, granted: sandbox.Protection) -> bool:
    own_files = granted.level == "namespaces"
    if kind in ("read files", "write files", "environment"):
        return own_files or LANDLOCK in granted.in_force
    if kind == "fill the disk":
        return own_files
    if kind in ("sockets", "reach processes", "network", "undo the sandbox"):
        return SECCOMP in granted.in_force
    return True


def _honest(name: str, level: str) -> Trial:
    code, tests, failing = HONEST[name]
    right = sandbox._started(code, tests, PATIENT, level)[0]
    wrong = sandbox._started(code, [*tests, failing], PATIENT, level)[0]
    if (right.outcome, wrong.outcome) == ("passed", "failed a test"):
        return Trial("sandbox", "honest answers", "right")
    detail = f"{name}, {level}: {right}, {wrong}"
    return Trial("sandbox", "honest answers", "silent", detail)
