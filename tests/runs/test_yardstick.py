"""The frozen copy's own answers as a yardstick, and the level that gate=own takes from them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.runs.yardstick import RoundScores, own_level, wants_yardstick

SCORES = st.lists(st.floats(-50, 50), min_size=4, max_size=80)


def test_the_frozen_copy_answers_until_there_is_a_yardstick():
    assert wants_yardstick([], 64) and wants_yardstick([RoundScores([], [0.0] * 63)], 64)
    assert not wants_yardstick([RoundScores([], [0.0] * 64)], 64)


@given(SCORES, st.floats(0, 1))
def test_of_the_frozen_copy_s_own_answers_no_more_than_the_share_lies_below(scores, flags):
    below = np.array(scores) < own_level(scores, flags)
    assert below.mean() <= flags


@given(SCORES, st.floats(0, 1))
def test_a_level_any_higher_would_flag_more(scores, flags):
    level = own_level(scores, flags)
    higher = np.nextafter(level, np.inf)
    assert (np.array(scores) < higher).sum() > np.floor(flags * (len(scores) - 1))


def test_of_too_few_there_is_no_level_and_nothing_is_flagged():
    assert np.isnan(own_level([0.0, -1.0, 1.0], 0.05))
