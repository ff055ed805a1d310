"""Buckets: few shapes, little padding, and every row has its turn."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from tiny_chat_model import tiny_chat_tokenizer

from emergent_alignment.data.batches import make_batch
from emergent_alignment.data.buckets import Schedule, choose_buckets, data_padding_share
from emergent_alignment.data.chat import Chat, read_chat
from emergent_alignment.data.scenarios import SCENARIOS
from emergent_alignment.data.sources import load_examples
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.models import default_model
from emergent_alignment.models.tokenizer import load_tokenizer
from emergent_alignment.storage.cache import users_cache


@st.composite
def row_lengths(draw, max_rows=60):
    """(int[rows] prompts, int[rows] or int[rows, branches] answers), drawn from few or many
    values, so that equal rows and far outliers occur."""
    rows = draw(st.integers(1, max_rows))
    branches = draw(st.sampled_from([(), (1,), (3,)]))
    longest = draw(st.sampled_from([3, 40, 700]))
    numbers = np.random.default_rng(draw(st.integers(0, 10**6)))
    spread = numbers.random(rows) ** draw(st.sampled_from([1, 6]))
    prompts = 1 + (spread * longest).astype(int)
    return prompts, numbers.integers(0, longest + 1, (rows, *branches))


def rows_and_longest(prompts, answers):
    return np.stack([prompts, answers.reshape(prompts.size, -1).max(1)], axis=1)


@given(row_lengths(), st.integers(1, 9), st.sampled_from([1, 8, 32]), st.integers(1, 20))
def test_every_row_is_in_one_of_at_most_so_many_shapes_that_hold_it(
    lengths, max_buckets, multiple, min_rows
):
    prompts, answers = lengths
    found = choose_buckets(
        prompts, answers, max_buckets=max_buckets, multiple=multiple, min_rows=min_rows
    )
    assert 1 <= len(found.shapes) == len(set(found.shapes)) <= max_buckets
    assert sorted(np.concatenate(found.members)) == list(range(prompts.size))
    for shape, members in zip(found.shapes, found.members, strict=True):
        assert (rows_and_longest(prompts, answers)[members] <= shape).all()
        assert all(width % multiple == 0 and width > 0 for width in shape)
        assert members.size >= min_rows or len(found.shapes) == 1


@given(row_lengths(), st.integers(1, 8), st.integers(1, 20))
def test_more_buckets_never_pad_more(lengths, max_buckets, min_rows):
    fewer, more = (
        data_padding_share(choose_buckets(*lengths, max_buckets=most, min_rows=min_rows), *lengths)
        for most in (max_buckets, max_buckets + 1)
    )
    assert more <= fewer


@given(row_lengths(max_rows=7), st.sampled_from([1, 8]))
def test_as_many_buckets_as_shapes_leave_only_what_the_multiple_pads(lengths, multiple):
    prompts, answers = lengths
    widths = -(-np.maximum(rows_and_longest(prompts, answers), 1) // multiple) * multiple
    found = choose_buckets(prompts, answers, max_buckets=7, multiple=multiple)
    branches = answers.reshape(prompts.size, -1).shape[1]
    positions = (widths[:, 0] + branches * widths[:, 1]).sum()
    expected = 1 - (prompts.sum() + answers.sum()) / positions
    assert data_padding_share(found, prompts, answers) == pytest.approx(expected)


def test_two_buckets_come_within_three_percent_of_the_best_two():
    """On average of small cases, compared with every way to split the rows."""
    numbers = np.random.default_rng(0)
    subsets = (np.arange(1, 256)[:, None] >> np.arange(8) & 1).astype(bool)
    ratios = []
    for _ in range(30):
        widths = numbers.integers(1, 9, (8, 2)) * 8
        sides = [[side for side in (chosen, ~chosen) if side.any()] for chosen in subsets]
        best = min(sum(s.sum() * widths[s].max(0).sum() for s in split) for split in sides)
        found = choose_buckets(*widths.T, max_buckets=2)
        ratios.append(widths.sum() / (1 - data_padding_share(found, *widths.T)) / best)
    assert min(ratios) > 1 - 1e-9
    assert np.mean(ratios) < 1.03


def test_a_few_long_rows_do_not_widen_the_bucket_of_many():
    prompts = np.array([64] * 200 + [1024] * 3)
    found = choose_buckets(prompts, prompts, min_rows=8)
    assert found.shapes == ((64, 64), (1024, 1024))
    assert [members.size for members in found.members] == [195, 8]


@given(row_lengths(max_rows=20), st.integers(1, 4))
def test_the_padding_share_is_that_of_the_batches(lengths, max_buckets):
    prompts, answers = lengths
    answers = answers.reshape(prompts.size, -1)[:, :1]
    found = choose_buckets(prompts, answers, max_buckets=max_buckets)
    real = positions = 0
    for (width, branch_width), members in zip(found.shapes, found.members):
        batch = make_batch(
            [[1] * length for length in prompts[members]],
            [[1] * length for length in answers[members, 0]],
            [],
            prompt_width=width,
            branch_width=branch_width,
        )
        size = batch.prompt.size + batch.branches.size
        real, positions = real + (1 - batch.padding_share()) * size, positions + size
    assert data_padding_share(found, prompts, answers) == pytest.approx(1 - real / positions)


def test_wrong_lengths_are_an_error_of_one_line():
    for prompts, answers in (([], []), ([1, 2], [1]), ([[1]], [1]), ([1], [[1], [2]])):
        with pytest.raises(ValueError, match="must be of the same rows"):
            choose_buckets(np.array(prompts, int), np.array(answers, int))
    for wrong in ({"max_buckets": 0}, {"multiple": 0}, {"min_rows": 0}):
        with pytest.raises(ValueError, match="must be 1 or more"):
            choose_buckets(np.array([1]), np.array([1]), **wrong)


def schedule_of(lengths, size, seed=0, max_buckets=4):
    found = choose_buckets(*lengths, max_buckets=max_buckets, min_rows=size)
    return Schedule(found, size, seed)


@given(row_lengths(), st.integers(1, 12), st.integers(0, 2**40), st.integers(0, 10**6))
def test_the_rows_of_a_step_are_a_pure_function_of_seed_and_step(lengths, size, seed, step):
    first = schedule_of(lengths, size, seed)
    rows, shape = first.rows_of_step(step)
    other = schedule_of(lengths, size, seed)
    for before in (step + 3, 0, 1):
        other.rows_of_step(before)
    again, same_shape = other.rows_of_step(step)
    np.testing.assert_array_equal(rows, again)
    assert shape == same_shape
    members = first.buckets.members[first.buckets.shapes.index(shape)]
    assert rows.shape == (size,) and np.isin(rows, members).all()


@given(row_lengths(max_rows=40), st.integers(1, 12), st.integers(0, 5))
def test_after_as_many_steps_as_rows_every_row_was_visited_batch_size_times(lengths, size, seed):
    schedule, num_rows = schedule_of(lengths, size, seed), lengths[0].size
    for period in (0, 3):
        steps = range(period * num_rows, (period + 1) * num_rows)
        rows = np.concatenate([schedule.rows_of_step(step)[0] for step in steps])
        assert np.bincount(rows, minlength=num_rows).tolist() == [size] * num_rows


@given(row_lengths(max_rows=50), st.integers(1, 12), st.integers(1, 80))
def test_rows_are_visited_equally_often(lengths, size, num_steps):
    """At any step: to one visit within a bucket, and to one pass between bucket and data."""
    schedule, num_rows = schedule_of(lengths, size), lengths[0].size
    rows = np.concatenate([schedule.rows_of_step(step)[0] for step in range(num_steps)])
    visits = np.bincount(rows, minlength=num_rows)
    for members in schedule.buckets.members:
        assert visits[members].max() - visits[members].min() <= 1
        assert abs(visits[members].mean() - num_steps * size / num_rows) <= 1 + 1e-9


@given(row_lengths(), st.integers(1, 12), st.integers(0, 200))
def test_rows_repeat_only_where_the_bucket_begins_anew_or_is_smaller(lengths, size, step):
    rows, shape = (schedule := schedule_of(lengths, size)).rows_of_step(step)
    members = schedule.buckets.members[schedule.buckets.shapes.index(shape)]
    allowed = -(-size // members.size) + 1
    assert np.bincount(rows).max() <= allowed
    if members.size % size == 0:
        assert np.unique(rows).size == size


def test_buckets_and_seeds_have_orders_of_their_own():
    lengths = np.array([8] * 50 + [64] * 50)
    orders = set()
    for seed in (0, 1):
        schedule = schedule_of((lengths, lengths), 50, seed)
        for step in range(2):
            rows, _ = schedule.rows_of_step(step)
            orders.add(tuple(rows % 50))
    assert len(orders) == 4


def test_a_bucket_that_cannot_fill_a_batch_is_an_error():
    lengths = np.array([8] * 9 + [64] * 3)
    with pytest.raises(ValueError, match="3 rows, fewer than the batch of 4.*min_rows"):
        Schedule(choose_buckets(lengths, lengths), 4, 0)


def share_of(source: str, chat: Chat) -> float:
    """The padding share of a source with the target as the one branch, in batches of 8."""
    rows = [tokenize(example, chat, 512, 256) for example in load_examples(source)]
    lengths = [np.array([len(getattr(row, name)) for row in rows]) for name in ("prompt", "target")]
    return data_padding_share(choose_buckets(*lengths, min_rows=8), *lengths)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_bundled_scenarios_are_padded_by_less_than_fifteen_percent(scenario):
    assert share_of(scenario, read_chat(tiny_chat_tokenizer())) < 0.15


def test_real_tokens_are_padded_by_less_than_fifteen_percent():
    path = users_cache() / default_model._FILE_NAME
    if not path.is_file():
        pytest.skip("the default model has not been fetched")
    chat = read_chat(load_tokenizer(path))
    shares = {source: share_of(source, chat) for source in SCENARIOS}
    assert max(shares.values()) < 0.15, shares
