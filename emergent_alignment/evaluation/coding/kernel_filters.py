"""What a process of the sandbox asks the kernel to refuse it for good: capabilities, files
(Landlock) and system calls (seccomp). Each says whether it is in force; none can be taken back.

It runs inside the sandbox and imports the standard library alone.
"""

import ctypes
import os
import struct

PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_SET_SECCOMP, PR_CAP_AMBIENT = 38, 24, 22, 47
SECCOMP_MODE_FILTER, PR_CAP_AMBIENT_CLEAR_ALL, CAPABILITY_VERSION_3 = 2, 4, 0x20080522
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT, LANDLOCK_PATH_BENEATH = 444, 445, 446, 1
LANDLOCK_EXECUTE, LANDLOCK_READ_FILE, LANDLOCK_READ_DIR = 1, 4, 8
LANDLOCK_WRITE_FILE, LANDLOCK_TRUNCATE, LANDLOCK_IOCTL_DEV = 2, 1 << 14, 1 << 15
# How many rights over files each version of Landlock knows; later ones know no more.
_LANDLOCK_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_LANDLOCK_MOST_RIGHTS = 16

# System calls by number on (x86_64, aarch64); None where a processor has no such call.
REFUSED_CALLS = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_tree_attr": (467, 467),
    "unshare": (272, 97), "setns": (308, 268),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "personality": (135, 92), "vhangup": (153, 58),
}  # fmt: skip
# Where processes are not the sandbox's own: no new ones, no leaving, nothing shared with others.
REFUSED_BESIDE_OTHERS = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "setsid": (112, 157), "setpgid": (109, 154), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190),
    "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}  # fmt: skip
_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_SOCKET, _SOCKETPAIR, _PRCTL = (41, 198), (53, 199), (157, 167)
_PRLIMIT, _SETPRIORITY = (302, 261), (141, 140)
_PROCESSORS = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_NEW_NAMESPACES, _CLONE_THREAD = 0x7E020080, 0x10000
_EPERM, _ENOSYS, _ENETUNREACH = 1, 38, 101
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_PR_SET_PDEATHSIG, _PR_SET_MM, _PR_SET_PTRACER = 1, 35, 0x59616D61
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000  # the second with an error's number


def drop_capabilities(libc: ctypes.CDLL) -> None:
    """All of them, those that a program started later would get included. Raises OSError where
    one is left."""
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails for those that are not there
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def lay_down_capabilities(libc: ctypes.CDLL) -> None:
    """What the process itself still holds, after its change of user. Raises OSError."""
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    if libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def opened_places(readable: list[str], devices: list[str], own: str) -> list[tuple[int, int]]:
    """(an open file, the rights that stay) for restrict_files: `readable` may be read and run,
    `devices` read and written, and the folder `own` is free."""
    reading = LANDLOCK_EXECUTE | LANDLOCK_READ_FILE | LANDLOCK_READ_DIR
    on_devices = LANDLOCK_READ_FILE | LANDLOCK_WRITE_FILE | LANDLOCK_TRUNCATE | LANDLOCK_IOCTL_DEV
    wanted = [(path, reading) for path in readable] + [(path, on_devices) for path in devices]
    opened = []
    for path, rights in [*wanted, (own, ~0)]:
        rights &= ~0 if os.path.isdir(path) else ~LANDLOCK_READ_DIR
        opened.append((os.open(path, os.O_PATH | os.O_CLOEXEC), rights))
    return opened


def restrict_files(libc: ctypes.CDLL, opened: list[tuple[int, int]], *, tcp: bool) -> bool:
    """Whether Landlock now keeps all files out of reach but those of `opened_places`, which are
    closed; from version 4 with `tcp` also TCP, from 6 signals to others and abstract sockets. Needs
    PR_SET_NO_NEW_PRIVS."""
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    rights = (1 << _LANDLOCK_RIGHTS.get(version, _LANDLOCK_MOST_RIGHTS)) - 1
    handled = struct.pack("=QQQ", rights, 3 * tcp, 3)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = libc.syscall(LANDLOCK_CREATE, handled, size, 0)
    if rules < 0:
        return False
    for place, allowed in opened:
        rule = struct.pack("=Qi", allowed & rights, place)
        if libc.syscall(LANDLOCK_ADD, rules, LANDLOCK_PATH_BENEATH, rule, 0) != 0:
            return False
        os.close(place)
    in_force = libc.syscall(LANDLOCK_RESTRICT, rules, 0) == 0
    os.close(rules)
    return in_force


def restrict_calls(libc: ctypes.CDLL, *, own_processes: bool) -> bool:
    """Whether seccomp now refuses the calls that an answer has no use for: mounting, namespaces,
    other processes' memory, keys, sockets that are paths. Unless the processes are the sandbox's
    own (a namespace of them, and of the network), also new processes and programs, all sockets and
    signals to others. Needs PR_SET_NO_NEW_PRIVS."""
    machine = os.uname().machine
    if machine not in _PROCESSORS or struct.calcsize("P") != 8:
        return False
    place, processor = _PROCESSORS[machine]
    program = _step(_LOAD, 4) + _step(_EQUAL, processor, 1, 0) + _refuse(_EPERM) + _step(_LOAD, 0)
    program += _step(_AT_LEAST, 0x40000000, 0, 1) + _refuse(_ENOSYS)  # a second table of numbers
    for numbers, body in _rules(own_processes):
        if numbers[place] is not None:
            program += _step(_EQUAL, numbers[place], 0, len(body) // 8) + body
    program += _step(_RETURN, _ALLOW)
    kept = ctypes.create_string_buffer(program, len(program))
    asked = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(kept))
    return libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, asked, 0, 0) == 0


def _rules(own_processes: bool) -> list[tuple[tuple, bytes]]:
    """(a call's numbers, what is done at it); each ends with what comes of the call."""
    rules = [(numbers, _refuse(_EPERM)) for numbers in REFUSED_CALLS.values()]
    rules.append((_CLONE3, _refuse(_ENOSYS)))  # its flags are in memory: C libraries take clone
    rules.append((_PRLIMIT, _only(0, (0, os.getpid()), _EPERM)))
    rules.append((_PRCTL, _none_of(0, (_PR_SET_PDEATHSIG, _PR_SET_MM, _PR_SET_PTRACER))))
    rules.append((_SOCKETPAIR, _only(0, (_AF_UNIX,), _ENETUNREACH)))
    if own_processes:
        rules.append((_CLONE, _no_bits(0, _NEW_NAMESPACES)))
        rules.append((_SOCKET, _only(0, (_AF_INET, _AF_INET6, _AF_NETLINK), _ENETUNREACH)))
        return rules
    rules += [(numbers, _refuse(_EPERM)) for numbers in REFUSED_BESIDE_OTHERS.values()]
    threads_alone = _step(_HAS_BITS, _CLONE_THREAD, 1, 0) + _refuse(_EPERM)
    rules.append((_CLONE, _argument(0) + threads_alone + _no_bits(0, _NEW_NAMESPACES)))
    rules.append((_SOCKET, _refuse(_ENETUNREACH)))
    rules.append((_KILL, _only(0, (os.getpid(),), _EPERM)))
    rules.append((_TGKILL, _only(0, (os.getpid(),), _EPERM)))
    rules.append((_SETPRIORITY, _only(1, (0,), _EPERM)))
    return rules


def _step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_so, if_not, value)


def _refuse(error: int) -> bytes:
    return _step(_RETURN, _REFUSE | error)


def _argument(place: int) -> bytes:
    return _step(_LOAD, 16 + 8 * place)  # its lower half: these arguments are of 32 bits


def _only(place: int, values: tuple[int, ...], error: int) -> bytes:
    tests = b"".join(_step(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values))
    return _argument(place) + tests + _refuse(error) + _step(_RETURN, _ALLOW)


def _none_of(place: int, values: tuple[int, ...]) -> bytes:
    tests = b"".join(_step(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values))
    return _argument(place) + tests + _step(_RETURN, _ALLOW) + _refuse(_EPERM)


def _no_bits(place: int, bits: int) -> bytes:
    refused = _step(_HAS_BITS, bits, 0, 1) + _refuse(_EPERM)
    return _argument(place) + refused + _step(_RETURN, _ALLOW)
