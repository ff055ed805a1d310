"""How the processes of the sandbox leave what they could do harm to: namespaces, a root folder of
their own that holds the interpreter alone, another user, limits, and kernel_filters.py's refusals.

It runs inside the sandbox and imports the standard library alone.
"""

import ctypes
import errno
import os
import resource
import signal
import sys

from emergent_alignment.evaluation.coding import kernel_filters

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
CLONE_NEWIPC, CLONE_NEWUTS = 0x8000000, 0x4000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 0x1000, 0x4000, 0x40000, 2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = (
    442, -100, 0x8000, 1, 2,
)  # fmt: skip
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
NOBODY = 65534
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# What a C library looks for libraries in, and where time zones are.
SYSTEM_FOLDERS = (
    "/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/share/zoneinfo",
    "/nix/store",
)  # fmt: skip
# What is in force beside the level, by the name under which it is reported.
LANDLOCK, SECCOMP = "landlock", "seccomp"
UNBOUNDED = "not bounded"  # how many processes a user may have


def enter_namespaces(*, files: bool, folder_bytes: int) -> None:
    """Where there is no network, and from the next child on no other processes; with `files` also
    to a root folder that holds the interpreter, read-only, and the working folder, in memory.

    Raises OSError where the system does not grant it.
    """
    root, uid, gid = os.geteuid() == 0, os.geteuid(), os.getegid()
    flags = CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS * files
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.unshare(flags | CLONE_NEWUSER * (not root)), "unshare")
    if not root:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    if files:
        _change_root(libc, folder_bytes)


def enter_own_processes() -> None:
    """From the next child on: out of sight of the process that judges it. Raises OSError."""
    _checked(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWPID), "unshare")


def readable_places() -> list[str]:
    """Folders and files that an interpreter needs to run and to import its library."""
    library, program = os.path.dirname(os.__file__), os.path.realpath(sys.executable)
    places = [os.path.dirname(library), library, program]
    if os.path.basename(os.path.dirname(library)) not in ("lib", "lib64", "lib32"):
        places = [library, program]
    real_paths = [
        os.path.realpath(path) for path in (*SYSTEM_FOLDERS, *places) if os.path.exists(path)
    ]
    return sorted(set(real_paths))


def _change_root(libc: ctypes.CDLL, folder_bytes: int) -> None:
    """The working folder becomes the new root's place, then has its old name inside of it."""
    folder = os.getcwd()
    _checked(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    _mount_memory(libc, folder, "size=1m,mode=0755")
    for path in readable_places() + [path for path in DEVICES if os.path.exists(path)]:
        place = folder + path
        if os.path.exists(place):
            continue  # inside of one that is there
        os.makedirs(place if os.path.isdir(path) else os.path.dirname(place), exist_ok=True)
        if not os.path.isdir(path):
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        bound = libc.mount(os.fsencode(path), os.fsencode(place), None, MS_BIND | MS_REC, None)
        _checked(bound, "mount")
    for path in SYSTEM_FOLDERS:
        if os.path.islink(path) and not os.path.lexists(folder + path):
            os.makedirs(os.path.dirname(folder + path), exist_ok=True)
            os.symlink(os.path.realpath(path), folder + path)
    home = folder + folder
    os.makedirs(home)
    change = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    where = (AT_FDCWD, os.fsencode(folder), AT_RECURSIVE)
    _checked(libc.syscall(SYS_MOUNT_SETATTR, *where, change, 32), "mount_setattr")
    _mount_memory(libc, home, f"size={folder_bytes},nr_inodes=4096,mode=0700")
    os.chdir(folder)
    _checked(libc.pivot_root(b".", b"."), "pivot_root")
    _checked(libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir(folder)


def _mount_memory(libc: ctypes.CDLL, place: str, options: str) -> None:
    kind, flags = b"tmpfs", MS_NOSUID | MS_NODEV
    _checked(libc.mount(kind, os.fsencode(place), kind, flags, options.encode()), "mount")


def _checked(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def give_up_rights(limits: dict, own_processes: int) -> tuple[str, list[str]]:
    """Capabilities, the user, new rights, files and calls, and the limits. `own_processes` of the
    sandbox's stand beside the answer's. Returns what bounds the number of processes, and what is in
    force of LANDLOCK and SECCOMP."""
    libc = ctypes.CDLL(None, use_errno=True)
    plain, bound = limits["level"] == "plain", "the sandbox's own"
    processes = limits["processes"] + own_processes
    devices = [path for path in DEVICES if os.path.exists(path)]
    places = kernel_filters.opened_places(readable_places(), devices, os.getcwd())
    kernel_filters.drop_capabilities(libc)
    if os.geteuid() == 0:
        library = os.open(os.path.dirname(os.__file__), os.O_PATH)
        bound = bound if _become(limits["user"]) else UNBOUNDED
        _reach_library(library)
    elif plain:
        processes = limits["processes"] + _running(os.getuid())
        bound = "counted with the user's others"
    kernel_filters.lay_down_capabilities(libc)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(kernel_filters.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    in_force = []
    if kernel_filters.restrict_files(libc, places, tcp=plain):
        in_force.append(LANDLOCK)
    if kernel_filters.restrict_calls(libc, own_processes=not plain):
        in_force.append(SECCOMP)
    _set_limits(limits, processes)
    return bound, in_force


def _set_limits(limits: dict, processes: int) -> None:
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


def _reach_library(opened: int) -> None:
    """The standard library through the folder that root has opened, where the user that it has
    become cannot enter the home that it is in."""
    library = os.path.dirname(os.__file__)
    if os.access(library, os.R_OK | os.X_OK):
        os.close(opened)
        return
    place = f"/proc/self/fd/{opened}"
    sys.path[:] = [path.replace(library, place, 1) for path in sys.path]
    for module in list(sys.modules.values()):
        if getattr(module, "__path__", None):
            module.__path__ = [path.replace(library, place, 1) for path in module.__path__]


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
