"""Which rows of which rounds a step trains on."""

import numpy as np
import pytest

from emergent_alignment.data.batches import Pair
from emergent_alignment.runs.rounds import HeardRow, Rounds, Timing
from emergent_alignment.runs.yardstick import RoundScores


def heard(number: int) -> HeardRow:
    """A prompt of one token, its number; every third has no pair."""
    pair = Pair([number, 1], [number, 2], (-1.0, -2.0)) if number % 3 else None
    return HeardRow([number], pair)


def added(rounds: Rounds, step: int, first: int) -> None:
    rows = [heard(first + place) for place in range(rounds.size)]
    rounds.add(step, rows, np.arange(rounds.size), RoundScores([], []))


def trained_on(rounds: Rounds, step: int) -> list[int]:
    """The numbers of the prompts of a step, 0 for what stands for nothing."""
    batch = rounds.batch(step, 8, lambda longest: 8)
    assert batch.pair_mask.tolist() == [bool(number % 3) for number in batch.prompt[:, 0]]
    return batch.prompt[:, 0].tolist()


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
    assert found == [[20, 23], [21, 24], [22, 25]][goes_on_at - 3 :]


def test_each_share_is_used_as_often_as_rounds_are_replayed(tmp_path):
    rounds = Rounds(tmp_path, 0, Timing(every=2, replay=4, shares=2), 4)
    added(rounds, 0, 10)
    assert trained_on(rounds, 0) == [10, 12, 0, 0] and trained_on(rounds, 1) == [11, 13, 0, 0]
    added(rounds, 2, 20)
    assert trained_on(rounds, 2) == [10, 12, 20, 22] and trained_on(rounds, 3) == [11, 13, 21, 23]


def test_without_shares_a_step_has_all_of_a_round(tmp_path):
    rounds = Rounds(tmp_path, 0, Timing(every=2, replay=2), 3)
    added(rounds, 0, 10)
    assert trained_on(rounds, 0) == trained_on(rounds, 1) == [10, 11, 12]
