"""MC1, MC2 and A/B outcomes, by hand and by what must not change them."""

import numpy as np
import pytest

from emergent_alignment.evaluation.choices.scores import best_is_first, pair_outcome, right_mass


def test_mc1_and_mc2_by_hand():
    log_probs = np.log([0.2, 0.4, 0.3, 0.1])
    assert best_is_first(log_probs, 2) == 0  # 0.2 < 0.3; the other right one does not compete
    assert best_is_first(np.log([0.31, 0.1, 0.3, 0.29]), 2) == 1
    assert right_mass(log_probs, 2) == pytest.approx(0.6)
    assert best_is_first(np.log([0.3, 0.3]), 1) == 0


def test_every_option_competes():
    """A published script looped over half of the options; here any single wrong option, at any
    place, can win, and each changes the mass."""
    base = np.full(7, -5.0)
    base[0] = -3.0
    assert best_is_first(base, 1) == 1
    for place in range(1, 7):
        raised = base.copy()
        raised[place] = -1.0
        assert best_is_first(raised, 1) == 0, place
        assert right_mass(raised, 1) < right_mass(base, 1)


def test_mc2_stands_tiny_probabilities():
    log_probs = np.array([-2000.0, -2001.0, -2003.0])
    assert right_mass(log_probs, 1) == pytest.approx(right_mass(log_probs + 2000, 1))


@pytest.mark.parametrize(
    ("as_a", "as_b", "agreed", "credit", "summed", "num_a"),
    [
        ((-1, -2), (-2, -1), True, 1.0, 1.0, 1),
        ((-2, -1), (-1, -2), True, 0.0, 0.0, 1),
        ((-1, -9), (-1, -2), False, 0.5, 1.0, 2),  # always A, more so where A is better
        ((-1, -2), (-1, -9), False, 0.5, 0.0, 2),
        ((-3, -1), (-3, -1), False, 0.5, 0.5, 0),  # always B
        ((-1, -1), (-2, -1), False, 0.5, 1.0, 0),
    ],
)
def test_pairs_by_hand(as_a, as_b, agreed, credit, summed, num_a):
    found = pair_outcome(np.array(as_a, float), np.array(as_b, float))
    assert (found.agreed, found.credit, found.summed_credit) == (agreed, credit, summed)
    assert found.num_a == num_a
