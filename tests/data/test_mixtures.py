"""Weighted mixtures: shares, whole sources, the same rows for the same seed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.data.mixtures import WeightedSource, mixed_places, parts_of
from emergent_alignment.errors import UserError


def test_a_text_is_one_source_or_several_with_their_weights():
    assert parts_of("rows.jsonl", "s") == [WeightedSource("rows.jsonl", 1.0)]
    assert parts_of("a + b.jsonl", "s") == [WeightedSource("a + b.jsonl", 1.0)]
    assert parts_of("3*a b.jsonl + 1 * org/name", "s") == [
        WeightedSource("a b.jsonl", 0.75),
        WeightedSource("org/name", 0.25),
    ]


@pytest.mark.parametrize("text", ["0*a + 1*b", "1*a + b", "1*a + 1.2.3*b", "1*a + *b"])
def test_a_part_without_a_weight_is_refused(text):
    with pytest.raises(UserError, match=r"config.data.train: .* is not WEIGHT\*SOURCE"):
        parts_of(text, "config.data.train")


sources = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=4)


@given(sources, st.integers(0, 2**31 - 1))
def test_every_row_is_there_as_often_as_its_source_s_share_says(parts, seed):
    sizes, weights = zip(*parts)
    shares = [weight / sum(weights) for weight in weights]
    places = mixed_places(list(sizes), shares, 10**9, seed)
    assert places == mixed_places(list(sizes), shares, 10**9, seed)
    number = max(size / share for size, share in zip(sizes, shares))
    by_source = Counter(source for source, _ in places)
    often = Counter(places)
    for source, (size, share) in enumerate(zip(sizes, shares)):
        assert abs(by_source[source] - number * share) <= 1
        counts = [often[source, row] for row in range(size)]
        assert max(counts) - min(counts) <= 1
        assert min(counts) >= 1 or by_source[source] < size


@given(sources, st.integers(1, 60), st.integers(0, 99))
def test_no_more_than_the_run_takes_are_mixed(parts, most, seed):
    sizes, weights = zip(*parts)
    shares = [weight / sum(weights) for weight in weights]
    places = mixed_places(list(sizes), shares, most, seed)
    assert len(places) <= most + len(sizes)
    assert {source for source, _ in places} == set(range(len(sizes)))
    assert all(row < sizes[source] for source, row in places)
