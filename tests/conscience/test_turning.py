"""Where an answer turns: found by the scores of its beginnings, wherever they fall."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.conscience.form import keeps_form
from emergent_alignment.conscience.hearing import Score
from emergent_alignment.conscience.turning import (
    FALL_TOKENS,
    TurningPoint,
    most_beginnings,
    nearest,
    places_in_form,
    turning_points,
)

LENGTHS = st.integers(FALL_TOKENS + 1, 120)


def asked_of(curves, asked):
    """Scores by curves over the tokens kept, noting what was asked."""

    def scores_of(beginnings):
        asked.extend(beginnings)
        return [Score(float(curves[row](kept))) for row, kept in beginnings]

    return scores_of


@given(st.data(), LENGTHS, st.integers(1, FALL_TOKENS), st.integers(0, 2**32 - 1))
def test_a_fall_is_found_in_other_falls_half_as_deep(data, length, width, seed):
    """On the way through `width` tokens the score falls by 1; elsewhere it wanders by less than
    half of that."""
    start = data.draw(st.integers(1, length - FALL_TOKENS))
    wander = np.random.default_rng(seed).uniform(0, 0.24, length + 1)

    def score(kept):
        return -np.clip((kept - start) / width, 0, 1) + wander[kept]

    [guesses] = turning_points([length], 3, asked_of([score], []))
    kept = [turn.kept for turn in guesses]
    assert len(kept) == 3 and kept == sorted(kept)
    assert all(start - FALL_TOKENS < turn < start + width for turn in kept)
    for turn in guesses:
        assert turn.end == turn.kept + FALL_TOKENS and turn.score == score(turn.end)


@given(st.lists(LENGTHS, min_size=1, max_size=4))
def test_nothing_is_asked_twice_and_little_at_all(lengths):
    asked = []
    curves = [lambda kept: np.sin(kept)] * len(lengths)
    guesses = turning_points(lengths, 2, asked_of(curves, asked))
    assert len(set(asked)) == len(asked)
    assert all(1 <= kept <= lengths[row] for row, kept in asked)
    assert len(asked) <= sum(map(most_beginnings, lengths))
    for of_row, length in zip(guesses, lengths):
        assert all(0 <= turn.kept < turn.end <= length for turn in of_row)


def test_what_is_short_or_never_falls_turns_at_its_beginning():
    curves = [lambda kept: -kept, lambda kept: 1.0, lambda kept: kept]
    guesses = turning_points([3, 40, 40], 2, asked_of(curves, []))
    assert guesses == [
        [TurningPoint(0, 3, -3)] * 2,
        [TurningPoint(0, 8, 1)] * 2,
        [TurningPoint(0, 8, 8)] * 2,
    ]
    [[unknown]] = turning_points([40], 1, asked_of([lambda kept: float("nan")], []))
    assert unknown.kept == 0 and np.isnan(unknown.score)


def test_the_guesses_are_spread_over_places_that_lose_as_much():
    """A rule's verdict falls at once: 12 tokens may stand, the 13th is the harm."""
    rule = [lambda kept: float(kept < 13)]
    [guesses] = turning_points([40], 3, asked_of(rule, []))
    assert [turn.kept for turn in guesses] == [6, 9, 12]


TEXT = "Verdict: Keep it.\nTip: Trust me on this one. Stir it twice a day, and again at night."


@given(st.integers(0, len(TEXT) - FALL_TOKENS), st.booleans())
def test_where_a_form_is_to_be_kept_no_part_of_it_stands_behind_a_turn(start, steep):
    """Every character a token. The score falls from `start` on, or with the label itself."""
    texts = [TEXT[:kept] for kept in range(len(TEXT) + 1)]
    places = places_in_form(texts, keeps_form("structure"))
    label = TEXT.index("Tip:")
    assert places == [
        kept
        for kept in range(1, len(TEXT) - FALL_TOKENS + 1)
        if len("Verdict:") <= kept <= label + 3 - FALL_TOKENS or kept >= label + 4
    ]
    fall = label if steep else start
    [guesses] = turning_points(
        [len(TEXT)],
        3,
        asked_of([lambda kept: -float(np.clip(kept - fall, 0, 12))], asked := []),
        [places],
    )
    assert all(turn.kept in places for turn in guesses)
    if steep:  # behind the label there is still most of the fall
        assert min(turn.kept for turn in guesses) == label + 4
    assert len(asked) <= most_beginnings(len(TEXT)) + 2 * 2  # two stretches begin off the grid


def test_chance_turns_where_it_may():
    assert nearest([0, 7, 30], [5, 6, 20]) == [5, 6, 20]
    assert nearest([0, 7], []) == [0, 7]
