"""A process that dies at its n-th operation on the files of a folder, before it or right after."""

import io
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path

KINDS = ("open", "fsync", "rename", "mkdir", "unlink")
_HOOKED = {
    "open": ((io, "open"),),
    "fsync": ((os, "fsync"),),
    "rename": ((os, "replace"), (os, "rename")),
    "mkdir": ((os, "mkdir"),),
    "unlink": ((os, "unlink"), (os, "rmdir")),
}


def counting(folder: Path, counts: Path) -> Callable[[], None]:
    """Hooks that write down how many operations of each kind there were."""
    seen: Counter[str] = Counter()

    def note(kind: str) -> None:
        seen[kind] += 1
        descriptor = _open(counts, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, " ".join(f"{k}={n}" for k, n in seen.items()).encode())
        os.close(descriptor)

    return lambda: _hook(folder, lambda kind, is_before: None if is_before else note(kind))


def dying(folder: Path, kind: str, number: int, *, after: bool) -> Callable[[], None]:
    """Hooks that kill the process at operation `number` of a kind, counted from 0."""
    seen: Counter[str] = Counter()

    def note(now: str, is_before: bool) -> None:
        if now == kind and seen[now] == number and is_before != after:
            os.kill(os.getpid(), signal.SIGKILL)
        seen[now] += not is_before

    return lambda: _hook(folder, note)


def read_counts(counts: Path) -> dict[str, int]:
    """{kind: how many}, as `counting` wrote it."""
    pairs = (word.split("=") for word in counts.read_text().split())
    return {kind: int(number) for kind, number in pairs}


_open = os.open


def _hook(folder: Path, note: Callable[[str, bool], None]) -> None:
    lock, place = threading.RLock(), str(folder.absolute())
    for kind, functions in _HOOKED.items():
        for module, name in functions:
            setattr(module, name, _noted(getattr(module, name), kind, place, note, lock))


def _noted(function: Callable, kind: str, place: str, note, lock) -> Callable:
    @wraps(function)
    def noted(*args, **options):
        if not _concerns(kind, args, options, place):
            return function(*args, **options)
        with lock:
            note(kind, True)
            result = function(*args, **options)
            note(kind, False)
        return result

    return noted


def _concerns(kind: str, args: tuple, options: dict, place: str) -> bool:
    if not args:
        return False
    if kind == "open":
        mode = options.get("mode", args[1] if len(args) > 1 else "r")
        if not isinstance(mode, str) or not set(mode) & set("wax+"):
            return False
    try:
        path = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else args[0]
        return os.path.abspath(os.fspath(path)).startswith(place)
    except (OSError, TypeError):
        return False
