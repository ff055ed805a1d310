"""The journal: every review as it happens, as JSON lines that `datasets` can load.

One shard for each start of a run and host, named by the step it began at; on a mounted bucket it
is a row of parts. A killed run loses at most the line it was writing, there what no part and no
checkpoint has closed; a resumed run's shard replaces the steps it does again.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from emergent_alignment.storage.growing_file import GrowingFile, grown_in
from emergent_alignment.storage.json_lines import (
    checked_line,
    read_json_lines,
    refuse,
    trim_torn_line,
)
from emergent_alignment.storage.shapes import FLAG, Mapped, Number, Optional, Text

_SCORE = Optional(Number())
# What a record of any kind has (journal_records.py, and those of rollouts), as far as it is read.
JOURNAL_LINE = {
    "step": Number(whole=True),
    "place": Number(0, whole=True),
    "row": Optional(Number(0, whole=True)),
    "prompt": Optional([{"role": Text(), "content": Text()}]),
    "candidate": Optional(Text()),
    "candidate_score": _SCORE,
    "principle": Optional(Text()),
    "critique": Optional(Text()),
    "revision": Optional(Text()),
    "revision_score": _SCORE,
    "outcome": Optional(Text()),
    "link": Optional(Text()),
    "failure": Optional(Text()),
    "scored_by": Optional(Text()),
    "attempts": Optional([{"link": Text(), "text": Text(), "score": _SCORE, "reason": Text()}]),
    "final": Optional(Text()),
    "refused": Optional(FLAG),
    "side": Optional(Text()),
    "kind": Optional(Text()),
    "rollout": Optional(Number(0, whole=True)),
    "reward": Optional(Mapped(Number())),
}


def warn(where: str) -> None:
    """Say on stderr that a line is left out."""
    print(f"emergent-alignment: {where}; the line is left out", file=sys.stderr, flush=True)


class Journal:
    """An open shard; `write` appends records and flushes them to the disk. On a mounted bucket they
    are there `part_seconds` later, or once `settle` has returned (growing_file.py)."""

    def __init__(
        self,
        directory: Path,
        *,
        first_step: int,
        host: int = 0,
        part_seconds: float | None = None,
    ):
        directory.mkdir(parents=True, exist_ok=True)
        for shard in directory.glob(f"*.host-{host:03d}.jsonl"):
            trim_torn_line(shard)
        self.path = directory / f"step-{first_step:08d}.host-{host:03d}.jsonl"
        self._file = GrowingFile(self.path, part_seconds=part_seconds)

    def write(self, records: list[dict]) -> None:
        """Append records; on a disk they survive a kill once this returns."""
        lines = [checked_line(record, ensure_ascii=False, allow_nan=False) for record in records]
        self._file.write(b"".join(lines))
        self._file.flush()

    def settle(self) -> None:
        """All records so far survive the loss of this machine."""
        self._file.settle()

    def close(self) -> None:
        """Close the shard."""
        self._file.close()


def check_journal(directory: Path) -> None:
    """Raise UserError for a line that is not what a former start has written."""
    for _ in _records(directory, refuse):
        pass


def read_journal(directory: Path, bad: Callable[[str], None] = warn) -> list[dict]:
    """All records by step and place; where a resumed run did a step again, its record counts.
    Lines that cannot be read are told to `bad` and left out."""
    records = {(record["step"], record["place"]): record for record in _records(directory, bad)}
    return [records[at] for at in sorted(records)]


def _records(directory: Path, bad: Callable[[str], None]) -> Iterator[dict]:
    for shard in grown_in(directory, ".jsonl"):
        yield from read_json_lines(shard, JOURNAL_LINE, bad)
