"""JSON lines: files that grow a record at a time, and that a kill may cut in their last line.

Behind a record that a later start goes by stands a check of its bytes: 32 spaces and tabs, one a
bit, which every reader of JSON skips. A line without one (a former version's, a person's) is taken
as it is.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import require_regular, write_whole
from emergent_alignment.storage.growing_file import GrowingFile, append_whole, grown_parts
from emergent_alignment.storage.json_values import parse_json
from emergent_alignment.storage.shapes import Shape, misfit

_CHECKED = re.compile(rb"(.*[^ \t])([ \t]{32})", re.DOTALL)


@dataclass(frozen=True)
class JsonLinesFolder:
    """A folder of JSONL files; its part `answers` is the file answers.jsonl."""

    path: Path

    def part_file(self, part: str) -> Path:
        """The file of a part, which need not be there."""
        return self.path / f"{part}.jsonl"

    def records(self, part: str, shape: Shape | None = None) -> Iterator[dict]:
        """The records of a part, in the order in which they were written."""
        return read_json_lines(self.part_file(part), shape)


def refuse(where: str) -> None:
    """Raise UserError for a line that cannot be what was written."""
    raise UserError(f"{where}. Put the file back as it was, or take the line out of it")


def checked_line(record: dict, **how: Any) -> bytes:
    """A record as a line with its check; `how` are json.dumps' options."""
    text = json.dumps(record, **how).encode()
    return text + _check(text) + b"\n"


def write_json_lines(path: Path, records: Iterable[dict], **how: Any) -> None:
    """A JSONL file of just these records, whole or not at all; `how` are json.dumps' options."""
    lines = (json.dumps(record, **how).encode() + b"\n" for record in records)
    write_whole(path, lambda file: file.writelines(lines))


def write_checked_lines(path: Path, records: Iterable[dict]) -> None:
    """The same, with a check behind each record."""
    lines = (checked_line(record) for record in records)
    write_whole(path, lambda file: file.writelines(lines))


def append_json_lines(file: RawIOBase | GrowingFile, records: list[dict]) -> None:
    """Append records to an unbuffered JSONL file, each in one write and with a check: no line of a
    process that appends to the same file (on a local disk) can fall between."""
    for record in records:
        append_whole(file, checked_line(record))


def read_json_lines(
    path: Path, shape: Shape | None = None, bad: Callable[[str], None] = refuse
) -> Iterator[dict]:
    """The whole lines of a JSONL file, and of its parts behind it (growing_file.py), each of which
    a kill may have cut in its last line.

    What is no JSON object, is none of `shape`, or is not what its check was made of, is told to
    `bad` (file, line and reason), which by default raises UserError, and is left out.
    """
    for part in grown_parts(path):
        with part.open("rb") as lines:  # bytes: a kill may cut within a letter
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n") or not line.strip():
                    continue
                try:
                    record = _record(line.rstrip(b"\r\n"), shape)
                except ValueError as error:
                    bad(f"{part}:{number}: {error}")
                    continue
                yield record


def require_undamaged(line: bytes) -> None:
    """Raise ValueError for a line, without its end, that has a check and is not what it was made
    of."""
    checked = _CHECKED.fullmatch(line)
    if checked and _check(checked[1]) != checked[2]:
        raise ValueError("damaged: not what was written there")


def trim_torn_line(path: Path) -> None:
    """Cut off what stands after the last line break: a line that a kill left unfinished."""
    require_regular(path)
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole != len(text):
        with path.open("r+b") as file:
            file.truncate(whole)


def _record(line: bytes, shape: Shape | None) -> dict:
    require_undamaged(line)
    record = parse_json(line, finite=True)
    if not isinstance(record, dict):
        raise ValueError(f"must be a JSON object, not {type(record).__name__}")
    if shape is not None and (wrong := misfit(record, shape)):
        raise ValueError(wrong)
    return record


def _check(text: bytes) -> bytes:
    return f"{zlib.crc32(text):032b}".translate({48: " ", 49: "\t"}).encode()
