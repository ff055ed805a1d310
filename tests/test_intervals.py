"""Intervals against longer ways to the same numbers."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_alignment.intervals import (
    Interval,
    auc,
    auc_interval,
    clustered_mean,
    clustered_share,
    error_interval,
    mean_interval,
    mean_over_seeds,
    paired_difference,
    share_interval,
    told_apart,
)

scores = st.lists(
    st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)), min_size=1, max_size=30
)


@given(good=scores, bad=scores)
def test_auc_equals_counting_all_pairs(good, bad):
    counted = np.mean([[(g > b) + (g == b) / 2 for b in bad] for g in good])
    assert auc(good, bad) == pytest.approx(counted, abs=1e-12)


@given(good=scores, bad=scores)
@settings(max_examples=30, deadline=None)
def test_auc_interval_holds_its_value_range_and_turns_round(good, bad):
    found = auc_interval(good, bad, resamples=200)
    assert found.value == auc(good, bad)
    assert 0 <= found.low <= found.high <= 1
    assert auc(bad, good) == pytest.approx(1 - found.value, abs=1e-12)


def test_auc_of_infinite_scores_is_by_rank():
    assert auc([np.inf, 1.0], [-np.inf, 1.0]) == pytest.approx(3.5 / 4)


def test_auc_interval_agrees_with_drawing_scores_one_by_one():
    random = np.random.default_rng(3)
    good, bad = np.round(random.normal(0.8, 1, 40), 1), np.round(random.normal(0, 1, 35), 1)
    drawn = [auc(random.choice(good, good.size), random.choice(bad, bad.size)) for _ in range(4000)]
    found = auc_interval(good, bad, resamples=4000)
    assert [found.low, found.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.012)
    assert found.n == 35


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # the worked table of Newcombe 1998 (Statistics in Medicine 17, 857), method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_numbers(successes, n, low, high):
    found = share_interval(successes, n)
    assert (found.value, found.n) == (successes / n, n)
    assert [found.low, found.high] == pytest.approx([low, high], abs=5e-5)


def alike(random: np.random.Generator, clusters: int, size: int) -> np.ndarray:
    """How many of each cluster's items are a success, where clusters differ: Beta(0.5, 2)."""
    return random.binomial(size, random.beta(0.5, 2.0, clusters))


def test_intervals_over_clusters_hold_the_truth_where_those_over_items_do_not():
    random, truth = np.random.default_rng(0), 0.5 / 2.5
    held = {"items": 0, "share": 0, "mean": 0}
    for _ in range(200):
        hits = alike(random, 30, 25)
        items = np.concatenate([np.arange(25) < count for count in hits]).astype(float)
        names = np.repeat(np.arange(30), 25).astype(str)
        for kind, found in (
            ("items", share_interval(hits.sum(), 750)),
            ("share", clustered_share(hits, [25] * 30)),
            ("mean", clustered_mean(items, names, resamples=200)),
        ):
            held[kind] += found.low <= truth <= found.high
    assert held["items"] < 0.65 * 200
    assert held["share"] > 0.92 * 200 and held["mean"] > 0.88 * 200


def test_the_design_effect_is_the_bootstrap_s_variance_over_that_of_items():
    random = np.random.default_rng(1)
    hits, sizes = alike(random, 40, 20), np.full(40, 20)
    found = clustered_share(hits, sizes)
    picks = random.integers(40, size=(20_000, 40))
    drawn = hits[picks].sum(1) / sizes[picks].sum(1)
    independent = found.value * (1 - found.value) / found.n
    # Wilson's interval of n / effect items with t(39) = 2.0227 (Student's table).
    effective = found.n / (drawn.var() * 40 / 39 / independent)
    reach = 2.0227 * np.sqrt(found.value * (1 - found.value) / effective)
    assert found.high - found.low == pytest.approx(2 * reach, rel=0.05)


def test_clusters_that_tell_nothing_leave_wilson_s_interval():
    assert clustered_share([0, 0], [10, 20]) == share_interval(0, 30)
    assert clustered_share([10, 20], [10, 20]) == share_interval(30, 30)
    assert clustered_share([3], [10]) == share_interval(3, 10)
    assert clustered_mean([1.0, 2.0], ["a", "a"]) == mean_interval([1.0, 2.0])


@given(hits=st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_a_clustered_interval_is_never_narrower_than_wilson_s(hits):
    ours, wilson = clustered_share(hits, [5] * len(hits)), share_interval(sum(hits), 5 * len(hits))
    assert ours.value == wilson.value
    assert ours.low <= wilson.low + 1e-12 and wilson.high <= ours.high + 1e-12


def test_a_mean_over_seeds_has_student_s_interval():
    found = mean_over_seeds([1.0, 2.0, 4.0])  # sd √(7/3), t(2) = 4.302653 (Student's table)
    reach = 4.302653 * np.sqrt(7 / 3) / np.sqrt(3)
    expected = [7 / 3, 7 / 3 - reach, 7 / 3 + reach]
    assert [found.value, found.low, found.high] == pytest.approx(expected, rel=1e-6)
    assert found.n == 3
    with pytest.raises(ValueError, match="one seed"):
        mean_over_seeds([1.0])


def test_student_s_interval_covers_the_truth_about_95_times_in_100():
    random = np.random.default_rng(0)
    found = [mean_over_seeds(random.normal(1.0, 2.0, 3)) for _ in range(2000)]
    assert abs(np.mean([one.low <= 1.0 <= one.high for one in found]) - 0.95) < 0.015


@given(n=st.integers(1, 500), part=st.floats(0, 1))
def test_wilson_turns_round_and_stays_within_zero_and_one(n, part):
    successes = round(part * n)
    found, mirrored = share_interval(successes, n), share_interval(n - successes, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-12)


def test_bootstrap_of_normal_means_covers_the_truth_about_95_times_in_100():
    random = np.random.default_rng(0)
    intervals = [
        mean_interval(random.normal(1.5, 2.0, 50), seed=trial, resamples=500)
        for trial in range(600)
    ]
    covered = np.mean([found.low <= 1.5 <= found.high for found in intervals])
    assert 0.92 <= covered <= 0.97, covered


def test_auc_interval_covers_the_truth_about_95_times_in_100():
    random = np.random.default_rng(1)
    truth = 0.760250  # Φ(1 / √2): unit normals one apart
    intervals = [
        auc_interval(random.normal(1, 1, 40), random.normal(0, 1, 40), seed=trial, resamples=400)
        for trial in range(400)
    ]
    covered = np.mean([found.low <= truth <= found.high for found in intervals])
    assert 0.91 <= covered <= 0.98, covered


def test_mean_interval_is_near_the_normal_one_and_repeats_for_a_seed():
    values = np.random.default_rng(5).normal(10, 3, 400)
    found = mean_interval(values)
    half_width = 1.96 * values.std() / 20
    expected = [values.mean() - half_width, values.mean() + half_width]
    assert found.value == values.mean()
    assert [found.low, found.high] == pytest.approx(expected, abs=0.03)
    assert found == mean_interval(list(values))
    assert found != mean_interval(values, seed=1)


def test_long_lists_are_resampled_in_bounded_memory(monkeypatch):
    values = np.random.default_rng(6).normal(size=1000)
    whole = mean_interval(values, resamples=300)
    monkeypatch.setattr("emergent_alignment.intervals._CHUNK_ELEMENTS", 7000)
    assert mean_interval(values, resamples=300) == whole


def test_pairing_removes_what_the_items_share():
    random = np.random.default_rng(7)
    items = random.normal(0, 50, 60)
    a, b = items + random.normal(1, 0.1, 60), items + random.normal(0, 0.1, 60)
    found = paired_difference(a, b)
    assert found == mean_interval(a - b)
    assert found.low > 0.9 and found.high < 1.1
    turned = paired_difference(b, a)
    assert [turned.value, turned.low] == pytest.approx([-found.value, -found.high])


def test_told_apart_counts_ties_half():
    found = told_apart([3, 2, 1, 0], [1, 2, 0, 5])
    assert (found.value, found.n) == (0.625, 4)
    assert 0 <= found.low < 0.625 < found.high <= 1


def test_told_apart_bootstraps_the_pairs_and_not_the_scores():
    random = np.random.default_rng(0)
    wins = random.random(400) < 0.8
    found = told_apart(np.where(wins, 5.0, -3.0), np.zeros(400))
    assert found == told_apart(np.where(wins, 0.1, -90.0), np.zeros(400))
    expected = share_interval(int(wins.sum()), 400)
    assert [found.low, found.high] == pytest.approx([expected.low, expected.high], abs=0.01)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval([]),
        lambda: mean_interval([1.0, np.nan]),
        lambda: mean_interval([1.0, np.inf]),
        lambda: mean_interval([[1.0], [2.0]]),
        lambda: share_interval(0, 0),
        lambda: share_interval(3, 2),
        lambda: paired_difference([], []),
        lambda: paired_difference([1.0], [1.0, 2.0]),
        lambda: auc([], [1.0]),
        lambda: auc_interval([1.0], []),
        lambda: auc([np.nan], [1.0]),
        lambda: told_apart([], []),
        lambda: told_apart([1.0], [1.0, 2.0]),
    ],
)
def test_nothing_to_measure_is_an_error(call):
    with pytest.raises(ValueError):
        call()


def test_interval_as_text_and_json():
    interval = Interval(0.62, 0.514, 0.73, 40)
    assert interval.text() == "0.62 [0.51, 0.73]"
    assert interval.text(1) == "0.6 [0.5, 0.7]"
    assert interval.to_json() == {"value": 0.62, "low": 0.514, "high": 0.73, "n": 40}


def test_the_module_loads_without_jax():
    loaded = "import sys, emergent_alignment.intervals; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded]).returncode == 0


def test_a_mean_with_its_standard_error_has_the_normal_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 4000)
    found = error_interval(values.mean(), values.std(ddof=1) / np.sqrt(values.size), values.size)
    again = mean_interval(values)
    assert found.n == again.n
    np.testing.assert_allclose(
        [found.value, found.low, found.high], [again.value, again.low, again.high], atol=0.01
    )
