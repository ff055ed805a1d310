"""Which rows of which rounds a step trains on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.data.batches import Pair, counted_rows
from emergent_alignment.runs.rounds import HeardRow, Rounds, Timing, few_rows
from emergent_alignment.runs.yardstick import RoundScores


def heard(number: int) -> HeardRow:
    """A prompt of one token, its number; every third has no pair."""
    pair = Pair([number, 1], [number, 2], (-1.0, -2.0)) if number % 3 else None
    return HeardRow([number], pair)


def added(rounds: Rounds, step: int, first: int) -> None:
    rows = [heard(first + place) for place in range(rounds.size)]
    rounds.add(step, rows, np.arange(rounds.size), RoundScores([], []))


def trained_on(rounds: Rounds, step: int) -> tuple[list[int], int]:
    """The numbers of the prompts whose pairs a step trains on, and for how many they count."""
    batch = rounds.batch(step, 8, lambda longest: 8)
    numbers = batch.prompt[batch.pair_mask, 0].tolist()
    assert batch.branches[batch.pair_mask, :, 0].tolist() == [[number] * 2 for number in numbers]
    return numbers, int(counted_rows(batch).sum())


@pytest.mark.parametrize("goes_on_at", [3, 4, 5])
def test_shares_of_a_round_are_trained_on_one_after_the_other(tmp_path, goes_on_at):
    """Six prompts, three steps: two each; a run that goes on in between has the same."""
    timing = Timing(every=3, replay=3, shares=3)
    rounds = Rounds(tmp_path, 0, timing, 6)
    added(rounds, 0, 10)
    added(rounds, 3, 20)
    if goes_on_at > 3:
        rounds = Rounds(tmp_path, goes_on_at, timing, 6)
    found = [trained_on(rounds, step) for step in range(goes_on_at, 6)]
    assert found == [([20, 23], 2), ([], 2), ([22, 25], 2)][goes_on_at - 3 :]


def test_each_share_is_used_as_often_as_rounds_are_replayed(tmp_path):
    rounds = Rounds(tmp_path, 0, Timing(every=2, replay=4, shares=2), 4)
    added(rounds, 0, 10)
    assert trained_on(rounds, 0) == ([10], 2) and trained_on(rounds, 1) == ([11, 13], 2)
    added(rounds, 2, 20)
    assert trained_on(rounds, 2) == ([10, 20, 22], 4)
    assert trained_on(rounds, 3) == ([11, 13, 23], 4)


def test_without_shares_a_step_has_all_of_a_round(tmp_path):
    rounds = Rounds(tmp_path, 0, Timing(every=2, replay=2), 3)
    added(rounds, 0, 10)
    assert trained_on(rounds, 0) == trained_on(rounds, 1) == ([10, 11], 3)


@given(st.integers(1, 4), st.integers(1, 8), st.data())
def test_few_rows_hold_what_is_needed(unit, units, data):
    """In whole units, and of no more than three numbers."""
    most = unit * units
    needed = data.draw(st.integers(0, most))
    found = few_rows(needed, most, unit)
    assert needed <= found <= most and found % unit == 0
    assert len({few_rows(n, most, unit) for n in range(most + 1)}) <= 3
    if units % 4 == 0:
        assert found < 2 * max(needed, most // 8 + 1)


def test_rows_without_a_pair_take_no_room(tmp_path):
    """Of twelve prompts of which a few have pairs, the pairs alone are computed: in three rows."""
    rounds = Rounds(tmp_path, 0, Timing(every=1, replay=1), 12)
    rows = [HeardRow([place + 1], None) for place in range(12)]
    rows[7] = heard(7)
    rounds.add(0, rows, np.arange(12), RoundScores([], []))
    batch = rounds.batch(0, 8, lambda longest: longest)
    assert batch.prompt.shape == (3, 1) and batch.pair_mask.tolist() == [True, False, False]
    assert rounds.batch(0, 8, lambda longest: longest, 4).prompt.shape[0] == 12
    assert counted_rows(batch).sum() == 12
