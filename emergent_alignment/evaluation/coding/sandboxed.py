"""What runs inside the sandbox: gives up rights, and starts the answer's process beside the
judge's.

Started by sandbox.py as a script of its own (`python -I -S`), in an empty folder. It imports the
standard library alone, and the modules of ours that do so. What cannot be given up on this system
is reported, not passed over.
"""

import json
import os
import struct
import sys

_OURS = "emergent_alignment"
_PACKAGES = os.path.abspath(__file__).split(f"{os.sep}{_OURS}{os.sep}evaluation{os.sep}")[0]
sys.path.insert(0, _PACKAGES)
from emergent_alignment.evaluation.coding.answering import AnswerTalk  # noqa: E402
from emergent_alignment.evaluation.coding.confinement import (  # noqa: E402
    SECCOMP,
    enter_namespaces,
    enter_own_processes,
    give_up_rights,
)
from emergent_alignment.evaluation.coding.conversation import Ended  # noqa: E402
from emergent_alignment.evaluation.coding.judging import JudgeTalk, judge  # noqa: E402

sys.path.remove(_PACKAGES)

# Where neither a namespace nor seccomp does, Python itself refuses these; native code could go
# round it, so that new programs and ctypes are refused, too.
REFUSED_EVENTS = tuple(
    "socket. subprocess. os.system os.exec os.fork os.posix_spawn ctypes.".split()
)


def main() -> None:
    """Read {limits} and, once the answer's process is there, {code, tests, entry_point} from stdin;
    report {processes, in_force} to the file of argv, and {outcome, detail} at the end.

    Raises OSError where the system does not grant limits["level"]: nothing has run then.
    """
    report = int(sys.argv[1])
    os.set_inheritable(report, False)
    sys.set_int_max_str_digits(0)  # numbers of any length cross as text
    limits = _read_frame()
    if limits["level"] != "plain":
        files = limits["level"] == "namespaces"
        enter_namespaces(files=files, folder_bytes=limits["folder_bytes"])
    child = os.fork()  # the first process of the new namespace: with it die all of its children
    if child:
        os._exit(_exit_code(child))
    to_answer, to_judge = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        for end in (report, to_answer[1], to_judge[0]):
            os.close(end)
        _be_answer(limits, to_answer[0], to_judge[1])
    os.close(to_answer[0])
    os.close(to_judge[1])
    _be_judge(limits, child, report, JudgeTalk(to_judge[0], to_answer[1]))


def _be_answer(limits: dict, reading: int, writing: int) -> None:
    """Out of the judge's sight and without rights, then what the judge asks."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if limits["level"] != "plain":
        enter_own_processes()
        child = os.fork()
        if child:
            os.close(writing)
            os._exit(_exit_code(child))
        os.setsid()
    given_up = give_up_rights(limits, own_processes=_num_ours())
    os.environ.clear()
    os.environ.update(PATH="/usr/bin:/bin", HOME=os.getcwd(), TMPDIR=os.getcwd())
    for name in [name for name in sys.modules if name.partition(".")[0] == _OURS]:
        del sys.modules[name]
    sys.argv[:] = [""]
    talk = AnswerTalk(reading, writing)
    talk.send("gave", given_up)
    _refuse_in_python(limits, given_up)
    talk.attend()
    os._exit(0)


def _num_ours() -> int:
    """How many processes of ours stand beside an answer and count as its user's: root's do not."""
    return 1 if os.geteuid() == 0 else 3


def _be_judge(limits: dict, child: int, report: int, talk: JudgeTalk) -> None:
    """Without rights, too: the tests are somebody's code. Reports what came of them."""
    try:
        _, (processes, in_force) = talk.receive()
        asked = _read_frame()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _refuse_in_python(limits, give_up_rights(limits, own_processes=_num_ours()))
        os.environ.update(HOME=os.getcwd(), TMPDIR=os.getcwd())
        _send(report, {"processes": processes, "in_force": in_force})
        outcome, detail = judge(talk, asked["code"], asked["tests"], asked["entry_point"])
    except Ended:
        code = _exit_code(child)
        outcome, detail = "ended early", f"exit code {code}, before its tests were done"
    for stream in (sys.__stdout__, sys.__stderr__):
        stream.flush()
    _send(report, {"outcome": outcome, "detail": detail})
    os._exit(0)


def _exit_code(child: int) -> int:
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _read_frame() -> dict:
    """A JSON object with its length before it; not a byte more is read."""
    (length,) = struct.unpack("=Q", _read(8))
    return json.loads(_read(length))


def _read(length: int) -> bytes:
    content = b""
    while len(content) < length:
        content += os.read(0, length - len(content)) or os._exit(1)
    return content


def _refuse_in_python(limits: dict, given_up: tuple[str, list[str]]) -> None:
    if limits["level"] == "plain" and SECCOMP not in given_up[1]:
        sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple) -> None:
    if event.startswith(REFUSED_EVENTS):
        raise PermissionError(f"the sandbox refuses {event}")


def _send(report: int, fields: dict) -> None:
    os.write(report, json.dumps(fields).encode() + b"\n")


if __name__ == "__main__":
    main()
