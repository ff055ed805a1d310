"""Files and folders that are there whole or not at all, whatever kills the process that writes
them. A kill may leave an unfinished one: hidden, under a name of its own, counted as nothing, and
removed by the next process that writes the same. A folder on a mounted bucket (mounts.py), where
none can be renamed, has its name from the start, and in it a mark until it is whole.
"""

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from emergent_alignment.errors import UserError
from emergent_alignment.storage.cache import CACHE_FOLDER
from emergent_alignment.storage.locks import LOCK_FILE, hold
from emergent_alignment.storage.mounts import is_bucket

UNFINISHED = ".partial"

BOM = b"\xef\xbb\xbf"  # before UTF-8 texts, as some editors write them
_WIDE = (b"\xff\xfe", b"\xfe\xff")


def write_whole(path: Path, content: str | bytes | Callable[[BinaryIO], None]) -> None:
    """Make `path` hold just the content (text in UTF-8, bytes, or what a function writes to an
    open file), in place of a former file. Folders above it are made. Processes that write the same
    path do not mix: the last one's file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path)
    unfinished = _unfinished(path)
    if isinstance(content, str):
        content = content.encode("utf-8")
    try:
        with unfinished.open("wb") as file:
            hold(file.fileno())
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, indent: int = 1) -> None:
    """One JSON value, whole or not at all."""
    write_whole(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `path` where the body succeeds, and else is removed.
    An OSError where `path` is there already, whole and not empty."""
    if is_bucket(path.parent):
        with _marked_folder(path):
            yield path
        return
    remove_unfinished(path)
    unfinished = _unfinished(path)
    held = None
    try:
        unfinished.mkdir(parents=True)
        held = os.open(unfinished, os.O_RDONLY)
        hold(held)
        yield unfinished
        os.rename(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if held is not None:
            os.close(held)


def is_whole_folder(path: Path) -> bool:
    """Whether there is a folder with something in it, and not what a killed `whole_folder` has left
    on a bucket."""
    return path.is_dir() and any(path.iterdir()) and not (path / UNFINISHED).exists()


@contextmanager
def _marked_folder(path: Path) -> Iterator[None]:
    """Within it `path` has a mark that it is not whole; it is removed where the body fails."""
    if is_whole_folder(path):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
    if (path / UNFINISHED).exists():
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    (path / UNFINISHED).write_bytes(b"")
    try:
        yield
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    (path / UNFINISHED).unlink()


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes have left of `path`; what a living one writes is locked."""
    ours = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{8}" + re.escape(UNFINISHED))
    with suppress(OSError):
        for name in os.listdir(path.parent):
            if ours.fullmatch(name):
                _remove_abandoned(path.parent / name)


def is_file(path: Path | str) -> bool:
    """Whether there is such a file; of a name that no file can have, too."""
    return os.path.isfile(path)


def require_regular(path: Path) -> None:
    """Raise OSError for a pipe or a device: reading one may never end, or fill the memory. The null
    device ends at once, and takes what other hosts than the first would write."""
    if str(path) == os.devnull:
        return
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.ENXIO, "it is a pipe or a device, and no file", str(path))


def read_text(path: Path, remedy: str, *, most_bytes: int = 2**24) -> str:
    """A small file of UTF-8 text that a user has named, without its BOM. Raises UserError, which
    says to do `remedy` where there is no such file."""
    if not is_file(path):
        raise UserError(f"{path}: no such file; {remedy}")
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= most_bytes else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    if size > most_bytes:
        raise UserError(f"{path}: {size} bytes, and {most_bytes} are read at most; {remedy}")
    return decoded(content, str(path))


def decoded(content: bytes, where: str) -> str:
    """Bytes as the UTF-8 text that they are, without its BOM. Raises UserError that says `where`
    for bytes that are none, and for zero bytes, which no text holds."""
    if content.startswith(_WIDE):
        raise UserError(f"{where}: not UTF-8 text but UTF-16; save the file as UTF-8")
    try:
        text = content.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{where}: not UTF-8 text; save the file as UTF-8") from None
    if "\0" in text:
        raise UserError(f"{where}: not text (it holds zero bytes); save the file as UTF-8")
    return text


def is_empty(folder: Path) -> bool:
    """Whether nothing is in a folder but what a kill has left unfinished, and caches."""
    return all(
        entry.name.endswith(UNFINISHED) or entry.name in (LOCK_FILE, CACHE_FOLDER)
        for entry in folder.iterdir()
    )


def _remove_abandoned(unfinished: Path) -> None:
    with suppress(OSError):
        opened = os.open(unfinished, os.O_RDONLY)
        try:
            if not hold(opened):
                return
            if unfinished.is_dir():
                shutil.rmtree(unfinished, ignore_errors=True)
            else:
                unfinished.unlink()
        finally:
            os.close(opened)


def _unfinished(path: Path) -> Path:
    """What `path` is called until it is whole; another name each time."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
