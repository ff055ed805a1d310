"""Rounds of listening: what came of each, for as many steps as its pairs are used in.

A round is made every `conscience.every` steps, and its pairs are trained on in `conscience.replay`
steps (semi-online preference learning: Lanchantin et al. 2025, 2506.21495). Rounds are kept in the
work directory, so that a run that was killed goes on with the pairs of an undisturbed one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emergent_alignment.data.batches import Batch, Pair, make_batch
from emergent_alignment.parallel.hosts import gather_list, is_first, together
from emergent_alignment.parallel.rows import own_rows
from emergent_alignment.runs.yardstick import RoundScores
from emergent_alignment.storage.growing_file import GrowingFile, grown_parts
from emergent_alignment.storage.json_lines import (
    append_json_lines,
    read_json_lines,
    write_checked_lines,
)
from emergent_alignment.storage.shapes import Number, OrNull

ROUNDS_FILE = "rounds.jsonl"
_TOKENS = [Number(0, whole=True)]
_ROUND = {
    "step": Number(0, whole=True),
    "rows": [
        {
            "place": Number(0, whole=True),
            "prompt": _TOKENS,
            "chosen": OrNull(_TOKENS),
            "rejected": OrNull(_TOKENS),
            "reference": OrNull([Number()]),
        }
    ],
    "scores": [Number()],
    "yardstick": [Number()],
}


@dataclass(frozen=True)
class HeardRow:
    """One prompt that was listened to, and its pair, if there is one."""

    prompt: list[int]
    pair: Pair | None


@dataclass(frozen=True)
class Timing:
    """A round `every` so many steps, each used in `replay` steps; a step takes one of its `shares`,
    in turn."""

    every: int
    replay: int
    shares: int = 1


class Rounds:
    """The rounds of a run, of `size` prompts each over all hosts. Those from before `first_step`,
    where the run goes on, are read."""

    def __init__(self, workdir: Path, first_step: int, timing: Timing, size: int):
        self.timing, self.size = timing, size
        self._path = workdir / ROUNDS_FILE
        self._rows: dict[int, list[HeardRow]] = {}
        self.measured: list[RoundScores] = []
        with together():
            records = list(read_json_lines(self._path, _ROUND)) if is_first() else []
        by_step = {record["step"]: record for record in gather_list(records)}
        kept = [by_step[step] for step in sorted(by_step) if step < first_step]
        with together():
            if is_first():
                write_checked_lines(self._path, kept)
                for part in grown_parts(self._path)[1:]:
                    part.unlink()
        for record in kept:
            self.measured.append(_measured(record))
            if record["step"] + timing.replay > first_step:
                self._rows[record["step"]] = _rows_of(record["rows"])

    def add(
        self, step: int, rows: list[HeardRow], places: np.ndarray, measured: RoundScores
    ) -> None:
        """The rows of a new round that this host holds, and what all hosts measured in it. It is on
        the disk once this returns."""
        records = gather_list([_record(row, int(place)) for row, place in zip(rows, places)])
        if is_first():
            record = {"step": step, "rows": records, **vars(measured)}
            with GrowingFile(self._path) as file:
                append_json_lines(file, [record])
                file.settle()
        self.measured.append(measured)
        self._rows[step] = _rows_of(records)
        for old in [made for made in self._rows if made + self.timing.replay <= step]:
            del self._rows[old]

    def batch(
        self, step: int, branch_width: int, width_of: Callable[[int], int], unit: int = 1
    ) -> Batch:
        """The pairs that a step trains on: those of the rounds that are in use, in so few rows as
        hold them (`few_rows`, multiples of `unit`). Prompts without a pair have no row; the first
        row stands for them where prompts are counted. `width_of` the longest prompt is their
        width."""
        heard = self._in_use(step)
        paired = [row for row in heard if row.pair is not None]
        most = self.timing.replay // self.timing.every * (self.size // self.timing.shares)
        num_rows = few_rows(len(paired), most, unit)
        rows = paired + [HeardRow([], None)] * (num_rows - len(paired))
        counted = np.array([row.pair is not None for row in rows], np.int32)
        counted[0] += len(heard) - len(paired)
        own = own_rows(num_rows)
        shown = [rows[place] for place in own]
        batch = make_batch(
            [row.prompt for row in shown],
            [[]] * len(shown),
            [row.pair for row in shown],
            prompt_width=width_of(max((len(row.prompt) for row in paired), default=0)),
            branch_width=branch_width,
            roles="no target",
            with_reference=True,
        )
        return replace(batch, counted=counted[own])

    def _in_use(self, step: int) -> list[HeardRow]:
        """All hosts' rows of the rounds that a step trains on: its share of each."""
        replay, shares = self.timing.replay, self.timing.shares
        return [
            row
            for made, rows in sorted(self._rows.items())
            if made <= step < made + replay
            for row in rows[(step - made) % shares :: shares]
        ]


def few_rows(needed: int, most: int, unit: int) -> int:
    """A quarter or a half of `most` rows where they hold those that are needed, or all: three
    programs at most. All are multiples of `unit`, which `most` is one of."""
    fractions = (most // part for part in (4, 2) if most % (part * unit) == 0)
    return next((number for number in fractions if needed <= number), most)


def doubled_width(smallest: int, most: int) -> Callable[[int], int]:
    """Widths that double from `smallest`, and are no more than `most`: few programs."""

    def width(longest: int) -> int:
        return min(smallest << (-(-max(longest, 1) // smallest) - 1).bit_length(), most)

    return width


def _record(row: HeardRow, place: int) -> dict:
    pair = row.pair
    return {
        "place": place,
        "prompt": row.prompt,
        "chosen": pair and pair.chosen,
        "rejected": pair and pair.rejected,
        "reference": pair and list(pair.reference),
    }


def _rows_of(records: list[dict]) -> list[HeardRow]:
    """All hosts' rows of a round, by their places."""
    return [_row(record) for record in sorted(records, key=lambda record: record["place"])]


def _row(record: dict) -> HeardRow:
    if record["chosen"] is None:
        return HeardRow(record["prompt"], None)
    reference = tuple(record["reference"])
    return HeardRow(record["prompt"], Pair(record["chosen"], record["rejected"], reference))


def _measured(record: dict) -> RoundScores:
    return RoundScores(record["scores"], record["yardstick"])
