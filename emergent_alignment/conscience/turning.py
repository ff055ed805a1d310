"""Where an answer turns: the place behind which its score falls most.

The reviewer is asked about the answer's beginnings, each some tokens longer than the one before. On
the way through a harmful phrase their scores fall, and a score that falls by little here and there
falls most where the phrase stands.

Where the form is to be kept, an answer turns where its form stands already: no label, bullet or
heading comes within the phrase. Whatever is said there instead can then not lose one, and a score
that falls for the form's sake is no turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emergent_alignment.conscience.hearing import Score

FALL_TOKENS = 8  # how far a fall is measured: a phrase
_NEARLY = 0.85
_STRIDE = 4  # of the first look; the second is at every token around what that finds

# (row, tokens kept) of every beginning → their scores.
ScoresOf = Callable[[list[tuple[int, int]]], list[Score]]
# (text of a beginning, text of a shorter one) → whether the shorter one has the other's form.
HasForm = Callable[[str, str], bool]


@dataclass(frozen=True)
class TurningPoint:
    """How many tokens stand before it, how many there are with the phrase behind it, and the score
    of that beginning."""

    kept: int
    end: int
    score: float


def places_to_turn(length: int) -> range:
    """How many tokens of an answer of so many may stand before its turn: a phrase stands behind
    it."""
    return range(1, length - FALL_TOKENS + 1)


def places_in_form(texts: Sequence[str], has_form: HasForm) -> list[int]:
    """Those of `places_to_turn` where the form of the answer, so far as the phrase goes, stands
    already; `texts` are of its beginnings, from no token on to all."""
    places = places_to_turn(len(texts) - 1)
    return [kept for kept in places if has_form(texts[kept + FALL_TOKENS], texts[kept])]


def nearest(wanted: Sequence[int], places: Sequence[int]) -> list[int]:
    """To each number of tokens that is wanted the nearest of the places, or itself where there is
    none."""
    return [min(places, key=lambda kept: abs(kept - one), default=one) for one in wanted]


def turning_points(
    lengths: list[int], number: int, scores_of: ScoresOf, places: list[Sequence[int]] | None = None
) -> list[list[TurningPoint]]:
    """The turns of answers of so many tokens, as so many guesses: of the places behind which the
    score falls by nearly as much as anywhere, the first, the last and those evenly between; the
    answer's beginning where it is no longer than a phrase, or its score never falls. `places` are
    those where each answer may turn (None: anywhere)."""
    known: dict[tuple[int, int], float] = {}
    places = [places_to_turn(length) for length in lengths] if places is None else places
    roughly = _steepest([_first_look(of_row) for of_row in places], known, scores_of)
    fine = [
        [kept for kept in of_row if best[-1] and abs(kept - best[-1]) < _STRIDE]
        for of_row, best in zip(places, roughly)
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
    """Of how many beginnings of an answer of so many tokens, which may turn anywhere, the score is
    asked for at most: both ends of each fall, which are those of others in the first look."""
    second = 2 * (2 * _STRIDE - 1)
    return len(_first_look(places_to_turn(length))) + FALL_TOKENS // _STRIDE + second


def _first_look(places: Sequence[int]) -> list[int]:
    """Every few tokens, and where a stretch of places begins: behind a label."""
    there = set(places)
    return [kept for kept in places if kept % _STRIDE == 1 or kept - 1 not in there]


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
