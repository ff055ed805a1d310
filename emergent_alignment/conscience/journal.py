"""The journal: every review as it happens, as JSON lines that `datasets` can load.

One shard for each start of a run and host, named by the step it began at. A killed run loses
at most the line it was writing; a resumed run's shard replaces the steps it does again.
"""

import json
import os
from pathlib import Path

from emergent_alignment.storage.json_lines import read_json_lines, trim_torn_line


class Journal:
    """An open shard; `write` appends records and flushes them to the disk."""

    def __init__(self, directory: Path, *, first_step: int, host: int = 0):
        directory.mkdir(parents=True, exist_ok=True)
        for shard in directory.glob("*.jsonl"):
            trim_torn_line(shard)
        self.path = directory / f"step-{first_step:08d}.host-{host:03d}.jsonl"
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, records: list[dict]) -> None:
        """Append records; they survive a kill once this returns."""
        lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records]
        self._file.write("".join(line + "\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the shard."""
        self._file.close()


def read_journal(directory: Path) -> list[dict]:
    """All records by step and place; where a resumed run did a step again, its record counts."""
    records = {}
    for shard in sorted(directory.glob("*.jsonl")):
        for record in read_json_lines(shard):
            records[record["step"], record["place"]] = record
    return [records[at] for at in sorted(records)]
