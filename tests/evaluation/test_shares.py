"""Differences of shares, and the answers that they take, against published figures."""

import pytest

from emergent_alignment.evaluation.shares import answers_needed, share_difference
from emergent_alignment.intervals import share_interval


@pytest.mark.parametrize(
    ("first", "second", "needed"),
    [
        (0.0068, 0.0007, 1575),  # open models against their bases, arXiv 2502.17424
        (0.2, 0.1, 199),
        (0.1, 0.2, 199),
        (0.5, 0.5, None),
        (0.0, 0.0, None),
    ],
)
def test_answers_needed_for_known_effects(first, second, needed):
    assert answers_needed(first, second) == needed


def test_the_interval_of_a_difference_is_newcombes():
    """Newcombe 1998, table II, examples (a) and (h), method 10."""
    found = share_difference(share_interval(56, 70), share_interval(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    found = share_difference(share_interval(10, 10), share_interval(0, 10))
    assert (found.low, found.high) == pytest.approx((0.6075, 1.0), abs=1e-4)


def test_a_difference_turned_round_is_its_mirror():
    one, other = share_interval(3, 40), share_interval(11, 50)
    found, turned = share_difference(one, other), share_difference(other, one)
    assert (found.value, found.low, found.high) == pytest.approx(
        (-turned.value, -turned.high, -turned.low)
    )
    assert found.low < found.value < found.high
