"""Files that grow a record at a time, for as long as a run lives.

On a mounted bucket (mounts.py) what is open is nowhere yet. There NAME.jsonl grows in parts,
NAME.00000.jsonl, NAME.00001.jsonl, …, none of which is written to again once it is closed: after a
minute, and where `settle` asks for it. Who reads NAME.jsonl reads its parts behind it.
"""

import os
import re
import time
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import Self

from emergent_alignment.storage.files import require_regular
from emergent_alignment.storage.mounts import is_bucket

PART_SECONDS = 60.0
_NUMBERED = re.compile(r"(.*)\.(\d{5,})(\.[^.]*)")


def grown_parts(path: Path) -> list[Path]:
    """The files that hold what was appended to `path`, in the order in which it was."""
    found = {number: path.with_name(name) for number, name in _numbered(path).items()}
    return [*([path] if path.is_file() else []), *(found[number] for number in sorted(found))]


def grown_in(folder: Path, suffix: str) -> list[Path]:
    """By name, the paths to which a folder's files with this suffix were appended."""
    names = (path.name for path in folder.glob(f"*{suffix}"))
    parts = ((_NUMBERED.fullmatch(name), name) for name in names)
    return sorted({folder / (part[1] + part[3] if part else name) for part, name in parts})


def append_whole(file: RawIOBase, content: bytes) -> None:
    """Write all of it to an unbuffered file. The OSError of a full disk, which takes a part and
    says nothing, is raised, and names the file."""
    try:
        written = file.write(content)
        while written is not None and written < len(content):
            content = content[written:]
            written = file.write(content)
    except OSError as error:
        error.filename = error.filename or getattr(file, "name", None)
        raise


class GrowingFile:
    """A file, or its next parts, open to be appended to by one process: each `write` is whole. A
    part is closed by the first write to it after `part_seconds` (by default PART_SECONDS), and
    begins with `header`."""

    def __init__(self, path: Path, *, part_seconds: float | None = None, header: bytes = b""):
        self._path, self._header = path, header
        self._seconds = PART_SECONDS if part_seconds is None else part_seconds
        self._in_parts = is_bucket(path.parent)
        self._number = max(_numbered(path), default=-1) + 1
        self._file: RawIOBase | None = None
        if not self._in_parts:
            # Behind parts that were copied from a bucket stands one more.
            self._open(self._part() if self._number else path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def write(self, content: bytes) -> int:
        """Append all of it; how much that is."""
        if not content:
            return 0
        if self._file is None:
            self._open_next()
        append_whole(self._file, content)
        if self._in_parts and time.monotonic() - self._opened >= self._seconds:
            self.close()
        return len(content)

    def flush(self) -> None:
        """What was written survives a kill of this process, where the file system can do that
        without closing the file."""
        if self._file is not None and not self._in_parts:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                error.filename = error.filename or getattr(self._file, "name", None)
                raise

    def settle(self) -> None:
        """What was written survives the loss of this machine, as far as the file system does."""
        if self._in_parts:
            self.close()
        else:
            self.flush()

    def close(self) -> None:
        """Close the file, or the part that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _part(self) -> Path:
        stem, suffix = self._path.stem, self._path.suffix
        return self._path.with_name(f"{stem}.{self._number:05d}{suffix}")

    def _open_next(self) -> None:
        """A part that is nobody else's, where several processes fill one cache."""
        while self._file is None:
            with suppress(FileExistsError):
                self._open(self._part(), "xb")
            self._number += 1

    def _open(self, path: Path, mode: str = "ab") -> None:
        require_regular(path)
        self._file, self._opened = path.open(mode, buffering=0), time.monotonic()
        append_whole(self._file, self._header)


def _numbered(path: Path) -> dict[int, str]:
    """The names of the parts of `path`, by their numbers."""
    try:
        names = os.listdir(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    parts = (part for name in names if (part := _NUMBERED.fullmatch(name)))
    return {int(part[2]): part[0] for part in parts if part[1] + part[3] == path.name}
