"""The number from 0 to 100 that a reply begins with, read from its text piece by piece.

A reply is read as a number if its text is at most one space and then a numeral without leading
zeros that no further digit follows, and nothing that makes it a number of another scale: 0.8 is
not 0, and 8/10 is not 8.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

LARGEST = 100
NUMERAL = re.compile(r"0|[1-9][0-9]?|100")
_NUMBER = re.compile(r" ?(0|[1-9][0-9]?|100)(?![0-9])")
_FRACTION = re.compile(r"[.,](?:[0-9]|\Z)")
_OUT_OF = re.compile(r" ?/(?! ?100)| out\b")
_PARTS = re.compile(r"( ?)([0-9]*)(.*)", re.DOTALL)


def number_in(reply: str) -> int | None:
    """The number that a reply begins with, None where it begins with none."""
    match = _NUMBER.match(reply)
    return None if match is None or is_on_another_scale(reply) else int(match[1])


def is_on_another_scale(reply: str) -> bool:
    """Whether a reply begins with a share (0.8) or a mark (8/10, 8 out of 10)."""
    match, text = _NUMBER.match(reply), reply.rstrip(" .,\n")
    return bool(match) and changes_scale(int(match[1]), text[match.end() :])


def changes_scale(number: int, rest: str) -> bool:
    """Whether a number that `rest` follows, or begins to follow, is of another scale. A full stop
    after 0 or 1, and a stroke after 10 or less, say so too: what comes after them is not known."""
    if number <= 1 and _FRACTION.match(rest):
        return True
    return number <= 10 and _OUT_OF.match(rest) is not None


@dataclass(frozen=True)
class Part:
    """What a token's text adds to a reply: a space before, digits, and what else stands behind
    them, which ends the numeral."""

    space: bool
    digits: str
    rest: str

    @property
    def closed(self) -> bool:
        return bool(self.rest)


def part_of(text: str) -> Part | None:
    """The part that a text is; None where it is neither digits nor a single space."""
    space, digits, rest = _PARTS.fullmatch(text).groups()
    if not digits and (rest or not space):
        return None
    return Part(bool(space), digits, rest)


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
