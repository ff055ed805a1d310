"""λ as a price."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.runs.price import PriceSection, price
from emergent_alignment.runs.yardstick import RoundScores

YARDSTICK = [-1.0, 0.0, 1.0, 0.0]  # mean 0
SCORES = st.lists(st.floats(-50, 50), min_size=1, max_size=4)
SECTION = PriceSection()


def measured(*means: float) -> list[RoundScores]:
    return [RoundScores([mean], YARDSTICK if i == 0 else []) for i, mean in enumerate(means)]


def test_it_rises_while_the_policy_scores_worse_and_falls_while_it_does_not():
    weights = [price(measured(*[-0.5] * n), SECTION) for n in range(5)]
    assert weights[0] == SECTION.start and all(np.diff(weights) > 0)
    lower = [price(measured(*[0.1] * n), SECTION) for n in range(5)]
    assert all(np.diff(lower) < 0)


def test_within_the_slack_it_stands_still():
    deviation = float(np.std(YARDSTICK))
    assert abs(price(measured(-SECTION.slack * deviation), SECTION) - SECTION.start) < 1e-9


@given(st.lists(SCORES, max_size=8))
def test_it_stays_between_its_bounds(rounds):
    found = price([RoundScores(scores, YARDSTICK) for scores in rounds], SECTION)
    assert SECTION.least <= found <= SECTION.most


@given(st.lists(SCORES, min_size=1, max_size=6))
def test_it_goes_on_from_where_it_was(rounds):
    """What it is after all rounds is what the last one makes of it: a run resumes by its rounds."""
    history = [RoundScores(scores, YARDSTICK) for scores in rounds]
    before = price(history[:-1], SECTION)
    after = price(history, SECTION)
    deviation = float(np.std(YARDSTICK))
    step = SECTION.rate * (-np.mean(rounds[-1]) / deviation - SECTION.slack)
    expected = np.clip(before * np.exp(np.clip(step, -50, 50)), SECTION.least, SECTION.most)
    np.testing.assert_allclose(after, expected, rtol=1e-9)


def test_without_a_yardstick_or_scores_nothing_moves():
    assert price([RoundScores([-9.0], [])], SECTION) == SECTION.start
    assert price([RoundScores([], YARDSTICK)], SECTION) == SECTION.start
