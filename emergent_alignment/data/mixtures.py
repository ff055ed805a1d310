"""Weighted mixtures of several sources: which rows of each, and how often, in one list that is then
trained on as one source. Every choice is a function of the seed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emergent_alignment.data.batches import order_seed, rows_of_step
from emergent_alignment.errors import UserError

_BETWEEN = " + "
_WEIGHTED = re.compile(r"\s*([0-9.]+)\s*\*\s*(\S.*?)\s*")
# What orders of a mixture's sources are seeded with, beside the run's seed; others: own_rows.py
_ORDER = 1 << 17


@dataclass(frozen=True)
class WeightedSource:
    """A source, and its share of the rows (1.0: all)."""

    source: str
    share: float


def parts_of(text: str, setting: str) -> list[WeightedSource]:
    """The sources of "0.7*rows.jsonl + 0.3*others.jsonl"; a text without a weight is one source.
    Raises UserError that names the `setting` where a weight is none, or a part has none."""
    if not _WEIGHTED.fullmatch(text.split(_BETWEEN)[0]):
        return [WeightedSource(text, 1.0)]
    weighted = []
    for part in text.split(_BETWEEN):
        match = _WEIGHTED.fullmatch(part)
        weight = _number(match[1]) if match else None
        if not weight:
            raise UserError(
                f"{setting}: {part.strip()!r} is not WEIGHT*SOURCE, with a weight above 0; write "
                'a mixture as "0.7*rows.jsonl + 0.3*others.jsonl"'
            )
        weighted.append((match[2], weight))
    total = sum(weight for _, weight in weighted)
    return [WeightedSource(source, weight / total) for source, weight in weighted]


def with_sources(text: str, renamed: Callable[[str], str]) -> str:
    """The mixture (or single source) with each of its sources `renamed`, and its weights as they
    were written."""
    if not _WEIGHTED.fullmatch(text.split(_BETWEEN)[0]):
        return renamed(text)
    parts = [(part, _WEIGHTED.fullmatch(part)) for part in text.split(_BETWEEN)]
    return _BETWEEN.join(f"{m[1]}*{renamed(m[2])}" if m else part for part, m in parts)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def mixed_places(
    sizes: list[int], shares: list[float], most: int, seed: int
) -> list[tuple[int, int]]:
    """(source, row of it) of the rows of a mixture, source by source: each source has its share of
    them. There are as many as let every row of every source be there, and `most` at most (but one
    of each source); a source that is to have more than its rows has them several times, as often as
    each other give or take once.
    """
    whole = max(size / share for size, share in zip(sizes, shares))
    number = min(whole, max(most, 1))
    places = []
    for source, (size, share) in enumerate(zip(sizes, shares)):
        wanted = max(round(number * share), 1)
        rows = rows_of_step(size, wanted, order_seed(seed, _ORDER, source), 0)
        places += [(source, int(row)) for row in np.sort(rows)]
    return places
