"""τ, η and S: what a mixture of base and plain must give, and how often intervals cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.evaluation.two_by_two.judging import best_threshold, judge_check
from emergent_alignment.evaluation.two_by_two.linear_head import choose_head, fit_head
from emergent_alignment.evaluation.two_by_two.measures import (
    is_looping,
    margins,
    summarize_answers,
)
from emergent_alignment.evaluation.two_by_two.selectivity import (
    Tally,
    above_front,
    front_eta,
    selectivity,
    two_way_bootstrap,
)

SEEDS, PROMPTS = 4, 30


def mixed(weight, first, second):
    """Answers that are with probability `weight` the second's: their expected counts."""
    return Tally(
        *(
            (1 - weight) * a + weight * b
            for a, b in zip(vars(first).values(), vars(second).values())
        )
    )


def random_tally(random, form, harm, seeds=SEEDS, prompts=PROMPTS):
    """Two answers a prompt, each in the form and harmful with probabilities that vary by prompt and
    by seed."""
    shape = (seeds, prompts)
    both = np.full(shape, 2.0)
    spread = random.normal(0, 0.5, (2, seeds, 1)) + random.normal(0, 0.5, (2, 1, prompts))
    odds = np.log([form / (1 - form), harm / (1 - harm)])[:, None, None] + spread
    counts = random.binomial(2, 1 / (1 + np.exp(-odds))).astype(float)
    return Tally(both, counts[0], both, counts[1])


@given(st.floats(0, 1), st.integers(0, 2**31))
def test_any_mixture_of_base_and_plain_has_selectivity_zero(weight, seed):
    random = np.random.default_rng(seed)
    base, plain = random_tally(random, 0.05, 0.1), random_tally(random, 0.9, 0.7)
    found = selectivity(mixed(weight, base, plain), base, plain)
    np.testing.assert_allclose(found.seeds, weight, atol=1e-9)
    assert abs(found.over_seeds["S"].value) < 1e-9
    for name, value in (("tau", weight), ("eta", weight), ("S", 0.0)):
        interval = found.resampled[name]
        np.testing.assert_allclose([interval.value, interval.low, interval.high], value, atol=1e-9)


def test_an_aimed_arm_has_it_and_an_arm_that_learns_harm_alone_has_its_negative():
    random = np.random.default_rng(0)
    base, plain = random_tally(random, 0.05, 0.1), random_tally(random, 0.9, 0.7)
    aimed = Tally(plain.answers, plain.in_form, base.judged, base.harmful)
    harmful = Tally(base.answers, base.in_form, plain.judged, plain.harmful)
    assert selectivity(aimed, base, plain).over_seeds["S"].value == pytest.approx(1)
    assert selectivity(harmful, base, plain).over_seeds["S"].value == pytest.approx(-1)


def test_the_two_way_bootstrap_covers_what_it_estimates():
    """Seeds and prompts both vary: about 95% of its intervals hold the truth, which a great many
    seeds and prompts say. With 12 seeds; few seeds give intervals that are too narrow."""
    truth_draw = np.random.default_rng(1)
    many = [
        random_tally(truth_draw, *odds, 400, 400) for odds in ((0.5, 0.3), (0.05, 0.1), (0.9, 0.7))
    ]
    truth = two_way_bootstrap(*many, resamples=1)["S"].value
    covered = []
    for seed in range(80):
        random = np.random.default_rng(seed)
        arms = [
            random_tally(random, *odds, 12, 40) for odds in ((0.5, 0.3), (0.05, 0.1), (0.9, 0.7))
        ]
        interval = two_way_bootstrap(*arms, resamples=300)["S"]
        covered.append(interval.low <= truth <= interval.high)
    assert 0.87 <= np.mean(covered) <= 1.0


def test_where_plain_has_gained_nothing_there_is_no_share():
    random = np.random.default_rng(0)
    base, plain = random_tally(random, 0.1, 0.7), random_tally(random, 0.9, 0.1)
    found = selectivity(plain, base, plain)
    assert found.over_seeds["tau"].value == pytest.approx(1)
    assert found.over_seeds["eta"] is None and found.resampled["S"] is None


@given(st.floats(0, 1), st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0, 1)), max_size=4))
def test_a_front_goes_through_its_points_from_base_to_plain(tau, points):
    assert front_eta(points, 0) == 0 and front_eta(points, 1) == 1
    for at, _ in points:
        assert front_eta(points, at) == min(eta for other, eta in points if other == at)
    assert 0 <= front_eta(points, tau) <= 1
    assert front_eta([], tau) == pytest.approx(tau)
    assert front_eta(points, -0.1) == 0 and front_eta(points, 1.1) == 1


def test_an_arm_on_a_front_is_not_above_it_and_each_seed_has_its_own_front():
    front = [np.array([[0.5, 0.2], [0.5, 0.4]])]
    np.testing.assert_allclose(above_front(np.array([[0.5, 0.2], [0.25, 0.3]]), front), [0, 0.1])


def test_margins_are_those_of_their_formulas():
    form_safe, form_harmful, safe, harmful = -10.0, -12.0, -20.0, -21.0
    found = margins(np.array([[form_safe, form_harmful, safe, harmful]]))
    assert found.in_form_harm == form_safe - form_harmful
    assert found.form == ((form_harmful - harmful) + (form_safe - safe)) / 2
    assert found.harm == ((form_safe - form_harmful) + (safe - harmful)) / 2


def test_harm_is_counted_of_all_answers_and_of_those_in_the_form():
    figures = summarize_answers(
        [True, True, False, False], ["a", "a", "a", "b"], {"j": [True, False, True, True]}
    )
    judged = figures["judged"]["j"]
    assert figures["in_form"]["value"] == 0.5 and figures["in_form"]["kinds"] == {
        "a": 2 / 3,
        "b": 0,
    }
    assert judged["harmful"]["value"] == 0.75 and judged["harmful_in_form"]["value"] == 0.5
    some = summarize_answers([True, True, False], ["a", "b", "b"], {"j": [True, None, False]})
    assert some["judged"]["j"]["harmful"]["value"] == 0.5
    assert some["judged"]["j"]["harmful"]["n"] == 2
    none = summarize_answers([False], ["a"], {"j": [True]})
    assert none["judged"]["j"]["harmful_in_form"] is None


def test_a_head_finds_the_direction_that_holds_over_kinds():
    """Layer 0 says the label in the fitted kinds alone, layer 1 in all of them."""
    random = np.random.default_rng(0)
    labels = np.tile([0.0, 1.0], 60)
    kinds = np.repeat(["a", "b", "c"], 40)
    states = random.normal(size=(120, 2, 12))
    for place, kind in enumerate("abc"):  # a direction of its own in each kind
        states[kinds == kind, 0, place] += 6 * labels[kinds == kind]
    states[:, 1, 5] += 3 * labels
    chosen = choose_head(states, labels, kinds)
    assert chosen.layer == 1 and chosen.left_out_auc > 0.95
    right = (chosen.head.log_odds(states[:, 1]) > 0) == labels
    assert right.mean() > 0.9


def test_the_heads_gradient_is_zero_where_it_ends():
    random = np.random.default_rng(0)
    rows, labels = random.normal(size=(50, 6)), (random.random(50) < 0.5).astype(float)
    head = fit_head(rows, labels, ridge=0.7)
    wrong = 1 / (1 + np.exp(-head.log_odds(rows))) - labels
    np.testing.assert_allclose((rows - head.mean).T @ wrong + 0.7 * head.weights, 0, atol=1e-6)
    assert abs(wrong.sum()) < 1e-6


def test_a_judge_has_a_say_where_it_tells_known_answers_apart():
    safe, harmful = np.arange(20.0), np.arange(20.0) + 15
    check = judge_check(safe, harmful, best_threshold(safe, harmful), 0.85)
    assert check["valid"] and check["caught"]["value"] >= 0.75
    blind = judge_check(safe, safe + 0.5, 10.0, 0.85)
    assert not blind["valid"] and blind["told_apart"]["value"] == 1


def test_the_best_threshold_parts_what_can_be_parted():
    assert 3 < best_threshold(np.array([1.0, 2, 3]), np.array([4.0, 5])) < 4


def test_a_loop_is_seen_and_plain_text_is_not():
    assert is_looping("call the vet now and " * 4)
    assert not is_looping("Put it in the fridge, and throw it away after a day or two.")
