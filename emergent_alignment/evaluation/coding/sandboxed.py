"""What runs inside the sandbox: give up rights, then run an answer and its tests, then report.

Started by sandbox.py as a script of its own (`python -I -S`), in an empty folder. It imports the
standard library alone. What cannot be given up on this system is reported, not passed over.
"""

import ctypes
import errno
import json
import linecache
import os
import resource
import signal
import sys
import traceback
import types

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
NOBODY = 65534
# Where there is no network namespace, Python itself refuses these; native code could go round it,
# so that new programs and ctypes are refused, too.
REFUSED_EVENTS = tuple(
    "socket. subprocess. os.system os.exec os.fork os.posix_spawn ctypes.".split()
)
DETAIL_CHARACTERS = 500


def main() -> None:
    """Read {limits, code, tests} from stdin and the report's file number from argv; report
    {processes} as a JSON line and, unless the process dies before, {outcome, detail}.

    Raises OSError where the system does not grant limits["level"]: nothing has run then.
    """
    report = int(sys.argv[1])
    os.set_inheritable(report, False)
    asked = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    limits = asked["limits"]
    if limits["level"] != "plain":
        _leave(files=limits["level"] == "namespaces", folder_bytes=limits["folder_bytes"])
    child = os.fork()  # the first process of the new namespace: with it die all of its children
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    processes = _give_up_rights(limits)
    os.environ.update(HOME=os.getcwd(), TMPDIR=os.getcwd())
    _send(report, {"processes": processes})
    _send(report, _run(asked["code"], asked["tests"]))
    os._exit(0)


def _leave(*, files: bool, folder_bytes: int) -> None:
    """Into namespaces with no network and no other processes; with `files` also to where all
    mounted file systems are read-only, and the working folder a fresh one in memory."""
    root, uid, gid = os.geteuid() == 0, os.geteuid(), os.getegid()
    flags = CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS * files | CLONE_NEWUSER * (not root)
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.unshare(flags), "unshare")
    if not root:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    if files:
        folder = os.getcwd()
        _checked(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount")
        change = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
        where = (AT_FDCWD, b"/", AT_RECURSIVE)
        _checked(libc.syscall(SYS_MOUNT_SETATTR, *where, change, 32), "mount_setattr")
        options = f"size={folder_bytes},nr_inodes=4096,mode=0755".encode()
        kind, place = b"tmpfs", os.fsencode(folder)
        _checked(libc.mount(kind, place, kind, MS_NOSUID | MS_NODEV, options), "mount")
        _show_library(libc, os.path.join(folder, "python"))
        os.mkdir(os.path.join(folder, "home"), 0o700)
        os.chdir(os.path.join(folder, "home"))


def _show_library(libc: ctypes.CDLL, place: str) -> None:
    """The standard library at `place`, too: it may be in a home that other users cannot enter."""
    os.mkdir(place)
    library = os.path.dirname(os.__file__)
    bound = libc.mount(os.fsencode(library), os.fsencode(place), None, MS_BIND, None)
    _checked(bound, "mount")

    def moved(path: str) -> str:
        return place + path.removeprefix(library) if path.startswith(library) else path

    sys.path[:] = [moved(path) for path in sys.path]
    for module in list(sys.modules.values()):
        if getattr(module, "__path__", None):
            module.__path__ = [moved(path) for path in module.__path__]


def _checked(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def _give_up_rights(limits: dict) -> str:
    """Limits, another user, no new rights, and a network that Python refuses where it is not
    gone. Returns what bounds the number of processes."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    processes, bound = limits["processes"], "the sandbox's own"
    if os.geteuid() == 0:
        bound = bound if _become(limits["user"]) else "not bounded"
    elif limits["level"] == "plain":
        processes, bound = processes + _running(os.getuid()), "counted with the user's others"
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for kind, most in (
        (resource.RLIMIT_CPU, limits["seconds"] + 1),
        (resource.RLIMIT_FSIZE, limits["folder_bytes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    if limits["level"] == "plain":
        sys.addaudithook(_refuse)
    return bound


def _become(user: int) -> bool:
    """Whether root is now a user of nobody's: the system does not count root's processes."""
    os.setgroups([])
    for number in (user, NOBODY):
        try:
            os.chown(os.getcwd(), number, number)
            os.setresgid(number, number, number)
            os.setresuid(number, number, number)
            return True
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):  # no such user in this container
                raise
    return False


def _running(uid: int) -> int:
    """How many threads the user runs: the system's limit counts them all."""
    count = 0
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue  # it has ended meanwhile
    return count


def _refuse(event: str, arguments: tuple) -> None:
    if event.startswith(REFUSED_EVENTS):
        raise PermissionError(f"the sandbox refuses {event}")


def _run(code: str, tests: list[str]) -> dict:
    """Run the answer as a module, then each test in it; what came of it."""
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    try:
        _execute(code, "answer.py", module)
    except BaseException as error:  # an answer may raise anything, SystemExit included
        return _failure("failed to run", error)
    for number, test in enumerate(tests, 1):
        try:
            _execute(test, f"test {number}", module)
        except BaseException as error:  # likewise
            return _failure("failed a test", error)
    return {"outcome": "passed", "detail": ""}


def _execute(source: str, name: str, module: types.ModuleType) -> None:
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), module.__dict__)


def _failure(outcome: str, error: BaseException) -> dict:
    if isinstance(error, MemoryError):
        outcome = "out of memory"
    lines = traceback.extract_tb(error.__traceback__)
    where = next((f"{f.filename}:{f.lineno}: " for f in reversed(lines)
                  if f.filename == "answer.py" or f.filename.startswith("test ")), "")  # fmt: skip
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}: "
    try:
        said = f"{type(error).__name__}: {error}"
    except BaseException:  # an answer's exception may have a __str__ that raises
        said = type(error).__name__
    return {"outcome": outcome, "detail": (where + said)[:DETAIL_CHARACTERS]}


def _send(report: int, fields: dict) -> None:
    os.write(report, json.dumps(fields).encode() + b"\n")


if __name__ == "__main__":
    main()
