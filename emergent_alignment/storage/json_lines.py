"""JSON lines: files that grow a record at a time, and that a kill may cut in their last line."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

from emergent_alignment.storage.files import write_whole


@dataclass(frozen=True)
class JsonLinesFolder:
    """A folder of JSONL files; its part `answers` is the file answers.jsonl."""

    path: Path

    def part_file(self, part: str) -> Path:
        """The file of a part, which need not be there."""
        return self.path / f"{part}.jsonl"

    def records(self, part: str) -> Iterator[dict]:
        """The records of a part, in the order in which they were written."""
        return read_json_lines(self.part_file(part))


def write_json_lines(path: Path, records: Iterable[dict], **how: Any) -> None:
    """A JSONL file of just these records, whole or not at all; `how` are json.dumps' options."""
    lines = (json.dumps(record, **how).encode() + b"\n" for record in records)
    write_whole(path, lambda file: file.writelines(lines))


def append_json_lines(file: RawIOBase, records: list[dict]) -> None:
    """Append records to an unbuffered JSONL file, each in one write: no line of a process that
    appends to the same file (on a local disk) can fall between."""
    for record in records:
        file.write(json.dumps(record).encode() + b"\n")


def read_json_lines(path: Path) -> Iterator[dict]:
    """The whole lines of a JSONL file that a kill may have cut in its last line."""
    if not path.is_file():
        return
    with path.open("rb") as lines:  # bytes: a kill may cut within a letter
        for line in lines:
            if line.endswith(b"\n") and line.strip():
                yield json.loads(line)


def trim_torn_line(path: Path) -> None:
    """Cut off what stands after the last line break: a line that a kill left unfinished."""
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole != len(text):
        with path.open("r+b") as file:
            file.truncate(whole)
