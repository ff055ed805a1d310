"""Where an answer turns: the place behind which its score falls most.

The reviewer is asked about the answer's beginnings, each some tokens longer than the one before. On
the way through a harmful phrase their scores fall, and a score that falls by little here and there
falls most where the phrase stands.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from emergent_alignment.conscience.hearing import Score

FALL_TOKENS = 8  # how far a fall is measured: a phrase
_NEARLY = 0.85
_STRIDE = 4  # of the first look; the second is at every token around what that finds

# (row, tokens kept) of every beginning → their scores.
ScoresOf = Callable[[list[tuple[int, int]]], list[Score]]


@dataclass(frozen=True)
class TurningPoint:
    """How many tokens stand before it, how many there are with the phrase behind it, and the score
    of that beginning."""

    kept: int
    end: int
    score: float


def turning_points(
    lengths: list[int], number: int, scores_of: ScoresOf
) -> list[list[TurningPoint]]:
    """The turns of answers of so many tokens, as so many guesses: of the places behind which the
    score falls by nearly as much as anywhere, the first, the last and those evenly between; the
    answer's beginning where it is no longer than a phrase, or its score never falls."""
    known: dict[tuple[int, int], float] = {}
    coarse = [_first_look(length) for length in lengths]
    roughly = _steepest(coarse, known, scores_of)
    fine = [
        range(max(of_row[-1] - _STRIDE + 1, 1), min(of_row[-1] + _STRIDE, length - FALL_TOKENS + 1))
        if of_row[-1]
        else []
        for of_row, length in zip(roughly, lengths)
    ]
    guesses = _steepest(fine, known, scores_of)
    ends = {
        (row, kept): min(kept + FALL_TOKENS, length)
        for row, (of_row, length) in enumerate(zip(guesses, lengths))
        for kept in of_row
    }
    _learn({(row, end) for (row, _), end in ends.items()}, known, scores_of)

    def turn(row: int, kept: int) -> TurningPoint:
        end = ends[row, kept]
        return TurningPoint(kept, end, known[row, end])

    evenly = [np.linspace(0, len(of_row) - 1, number).round().astype(int) for of_row in guesses]
    return [
        [turn(row, of_row[i]) for i in chosen]
        for row, (of_row, chosen) in enumerate(zip(guesses, evenly))
    ]


def most_beginnings(length: int) -> int:
    """Of how many beginnings of an answer of so many tokens the score is asked for, at most: both
    ends of each fall, which are those of others in the first look."""
    second = 2 * (2 * _STRIDE - 1)
    return len(_first_look(length)) + FALL_TOKENS // _STRIDE + second


def _first_look(length: int) -> range:
    return range(1, length - FALL_TOKENS + 1, _STRIDE)


def _steepest(places, known: dict[tuple[int, int], float], scores_of: ScoresOf) -> list[list[int]]:
    """Of each row's places those behind which its score falls by nearly as much as anywhere, in
    their order; 0 where it never falls."""
    asked = {
        (row, kept + further)
        for row, of_row in enumerate(places)
        for kept in of_row
        for further in (0, FALL_TOKENS)
    }
    _learn(asked, known, scores_of)
    steepest = []
    for row, of_row in enumerate(places):
        falls = {kept: known[row, kept] - known[row, kept + FALL_TOKENS] for kept in of_row}
        falls = {kept: fall for kept, fall in falls.items() if np.isfinite(fall) and fall > 0}
        deep = _NEARLY * max(falls.values(), default=0.0)
        steepest.append(sorted(kept for kept, fall in falls.items() if fall >= deep) or [0])
    return steepest


def _learn(asked, known: dict[tuple[int, int], float], scores_of: ScoresOf) -> None:
    """Ask about what is not known yet."""
    new = sorted(asked - known.keys())
    known.update(zip(new, (score.nats for score in scores_of(new))))
