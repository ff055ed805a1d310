"""The journal: every review as it happens, as JSON lines that `datasets` can load.

One shard for each start of a run and host, named by the step it began at. A killed run loses
at most the line it was writing; a resumed run's shard replaces the steps it does again.
"""

import json
import math
import os
from pathlib import Path

from emergent_alignment.conscience.pairs import Reviewed
from emergent_alignment.storage.json_lines import read_json_lines, trim_torn_line


def journal_record(reviewed: Reviewed, *, step: int, place: int, row: int) -> dict:
    """A review as a flat JSON object; scores that were never read are null, and `failure` says
    where the reviewer itself failed. `place` is the candidate's place in its step, `row` the
    example it belongs to (a step that crosses epochs may hold an example twice)."""
    chosen = reviewed.chosen
    last = reviewed.attempts[-1] if reviewed.attempts else None
    shown = chosen or (last.answer if last else None)
    return {
        "step": step,
        "place": place,
        "row": row,
        "prompt": reviewed.prompt,
        "candidate": reviewed.candidate,
        "candidate_score": _number(reviewed.score),
        "scored_by": reviewed.scored_by,
        "failure": reviewed.failure,
        "critique": reviewed.critique,
        "revision": shown.text if shown else "",
        "revision_score": _number(last.score) if last else None,
        "link": last.link if last else "",
        "outcome": reviewed.outcome,
        "attempts": [
            {
                "link": attempt.link,
                "text": attempt.answer.text,
                "score": _number(attempt.score),
                "reason": attempt.reason,
                "failure": attempt.failure,
            }
            for attempt in reviewed.attempts
        ],
    }


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


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
