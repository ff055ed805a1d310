"""Locks on folders that one process at a time may write. The kernel lets go of one when its process
ends, however that ends: a killed run never keeps the next one out. Where a file system has no
locks, there are none; a folder of a mounted bucket is locked for the processes of this machine.
"""

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.storage.cache import own_cache
from emergent_alignment.storage.mounts import is_bucket

LOCK_FILE = ".lock"


def hold(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed, unless another has locked it: then False.
    Also False where it cannot be locked at all."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def locked(folder: Path, remedy: str, *, does: str = "works in it") -> Iterator[None]:
    """Within it nobody else may lock `folder`, which is made. Raises UserError, which names the
    other process, says what it `does`, and ends with `remedy`, where another has locked it."""
    folder.mkdir(parents=True, exist_ok=True)
    place = _beside(folder) if is_bucket(folder) else folder
    descriptor = _locked(folder, place / LOCK_FILE, remedy, does) if place else None
    try:
        yield
    finally:
        if descriptor is not None:
            # While it is held: who opens it from now on makes a new one.
            (place / LOCK_FILE).unlink(missing_ok=True)
            os.close(descriptor)


def _beside(folder: Path) -> Path | None:
    """Where this machine locks a bucket's folder, in which an open file is not seen; None where it
    keeps nothing."""
    digits = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    place = own_cache() / "locks" / digits
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return place


def _locked(folder: Path, path: Path, remedy: str, does: str) -> int | None:
    """The open lock file of a folder; None where the file system has no locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "unknown"
            os.close(descriptor)
            raise UserError(f"{folder}: another process {does} ({owner}); {remedy}") from None
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            return None
        if _is_there(path, descriptor):
            with suppress(OSError):  # the lock holds on a full disk, too
                os.ftruncate(descriptor, 0)
                owner = f"process {os.getpid()} on {socket.gethostname()}\n"
                os.pwrite(descriptor, owner.encode(), 0)
            return descriptor
        os.close(descriptor)  # its former owner has just removed it


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
