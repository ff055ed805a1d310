"""The number from 0 to 100 that a reply begins with, read from its text piece by piece.

A reply is read as a number if its text is at most one space and then a numeral without leading
zeros that no further digit follows.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

LARGEST = 100
NUMERAL = re.compile(r"0|[1-9][0-9]?|100")
_NUMBER = re.compile(r" ?(0|[1-9][0-9]?|100)(?![0-9])")
_PARTS = re.compile(r"( ?)([0-9]*)(.*)", re.DOTALL)


def number_in(reply: str) -> int | None:
    """The number that a reply begins with, None where it begins with none."""
    match = _NUMBER.match(reply)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class Part:
    """What a token's text adds to a reply: a space before, digits, and whether something else
    stands behind them, which ends the numeral."""

    space: bool
    digits: str
    closed: bool


def part_of(text: str) -> Part | None:
    """The part that a text is; None where it is neither digits nor a single space."""
    space, digits, rest = _PARTS.fullmatch(text).groups()
    if not digits and (rest or not space):
        return None
    return Part(bool(space), digits, bool(rest))


def extended(digits: str, part: Part, *, at_start: bool) -> str | None:
    """The digits so far with those of the next token, None where that is no numeral. A space
    may stand only at the start of a reply."""
    if part.space and not at_start:
        return None
    text = digits + part.digits
    return text if NUMERAL.fullmatch(text) or (at_start and not text) else None


def expectation(masses: Iterable[float]) -> tuple[float, float]:
    """(mean number, total mass) of masses over 0 … 100; the mean of no mass is not a number."""
    held = np.asarray(masses, np.float64)
    total = float(held.sum())
    mean = float(held @ np.arange(held.size) / total) if total > 0 else float("nan")
    return mean, total
