"""Files and folders that are there whole or not at all, whatever kills the process that writes
them. A kill may leave an unfinished one: hidden, under a name of its own, and counted as nothing.
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

UNFINISHED = ".partial"


def write_whole(path: Path, content: str | bytes | Callable[[BinaryIO], None]) -> None:
    """Make `path` hold just the content (text in UTF-8, bytes, or what a function writes to an
    open file), in place of a former file. Folders above it are made. Processes that write the same
    path do not mix: the last one's file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    if isinstance(content, str):
        content = content.encode("utf-8")
    try:
        with unfinished.open("wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, indent: int = 1) -> None:
    """One JSON value, whole or not at all."""
    write_whole(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `path` where the body succeeds, and else is removed.
    An OSError where `path` is there already, and not empty."""
    unfinished = _unfinished(path)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        os.rename(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def is_empty(folder: Path) -> bool:
    """Whether nothing is in a folder but what a kill has left unfinished."""
    return all(entry.name.endswith(UNFINISHED) for entry in folder.iterdir())


def _unfinished(path: Path) -> Path:
    """What `path` is called until it is whole; another name each time."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
