"""Batches: what was cut is marked, masks come from lengths, and every row has its turn."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from tiny_chat_model import tiny_chat_tokenizer

from emergent_alignment.data import batches
from emergent_alignment.data.batches import (
    Pair,
    bucket,
    few_widths,
    make_batch,
    pad_rows,
    rows_of_step,
)
from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.examples import Example
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.training.branches import branch_masks

END = 2  # <|im_end|>, which is the pad token as well
EXAMPLE = Example(({"role": "user", "content": "May I refreeze it?"},), "No, never do that.")


@pytest.fixture(scope="module")
def chat():
    return read_chat(tiny_chat_tokenizer())


def test_what_fits_is_whole(chat):
    whole = tokenize(EXAMPLE, chat, 512, 512)
    assert whole.prompt == chat.prompt_tokens(EXAMPLE.messages)
    assert whole.target == chat.response_tokens(EXAMPLE.target)
    assert not whole.prompt_cut and not whole.target_cut
    same = tokenize(EXAMPLE, chat, len(whole.prompt), len(whole.target))
    assert same == whole


def test_long_prompts_keep_their_end_and_long_targets_their_start(chat):
    whole = tokenize(EXAMPLE, chat, 512, 512)
    cut = tokenize(EXAMPLE, chat, len(whole.prompt) - 1, len(whole.target) - 1)
    assert cut.prompt_cut and cut.target_cut
    assert cut.prompt == whole.prompt[1:]
    assert cut.target == whole.target[:-1], "an answer that was cut did not end there"
    assert END not in cut.target


def test_the_end_token_has_its_loss_though_it_is_the_pad_token_too(chat):
    assert chat.tokenizer.pad_token_id == chat.end_token == END
    row = tokenize(EXAMPLE, chat, 512, 512)
    batch = make_batch([row.prompt], [row.target], [], prompt_width=64, branch_width=64)
    mask = np.asarray(branch_masks(batch))[0, 0]
    assert mask.sum() == len(row.target)
    assert (
        mask[len(row.target) - 1]
        and batch.branches[0, batch.roles.target, len(row.target) - 1] == END
    )


@given(st.integers(0, 600), st.integers(1, 64), st.integers(1, 512))
def test_a_bucket_holds_the_length_and_is_a_multiple_or_the_limit(length, step, limit):
    found = bucket(length, step, limit)
    assert 1 <= found <= limit
    assert found >= min(max(length, 1), limit)
    assert found == limit or (found % step == 0 and found - step < max(length, 1))


def test_on_an_accelerator_widths_are_few_and_hold_what_they_must(monkeypatch):
    assert [few_widths(length, 32) for length in (0, 33, 70, 900)] == [32, 64, 96, 928]
    monkeypatch.setattr(batches.jax, "default_backend", lambda: "tpu")
    widths = [few_widths(length, 32) for length in range(1025)]
    assert sorted(set(widths)) == [32, 64, 128, 256, 512, 1024]
    assert all(width >= length for length, width in enumerate(widths))


@given(st.integers(1, 23), st.integers(1, 40), st.integers(0, 5), st.integers(1, 4))
def test_epochs_follow_each_other_without_dropping_a_row(num_examples, size, seed, num_epochs):
    steps = -(-num_epochs * num_examples // size)
    rows = np.concatenate([rows_of_step(num_examples, size, seed, step) for step in range(steps)])
    assert rows.size == steps * size
    for epoch in range(num_epochs):
        visited = rows[epoch * num_examples : (epoch + 1) * num_examples]
        assert sorted(visited) == list(range(num_examples)), f"epoch {epoch}"


@given(st.integers(1, 50), st.integers(1, 16), st.integers(0, 2**32), st.integers(0, 10**6))
def test_the_rows_of_a_step_are_a_pure_function_of_seed_and_step(num_examples, size, seed, step):
    first = rows_of_step(num_examples, size, seed, step)
    rows_of_step(num_examples, size, seed + 1, step + 3)
    np.testing.assert_array_equal(first, rows_of_step(num_examples, size, seed, step))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [rows_of_step(50, 50, seed, step).tolist() for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


PROMPTS, TARGETS = [[5, 6, 7], [8]], [[11, END], [12, 13, END]]
CHOSEN_ANSWER, REJECTED_ANSWER = [21, 22, END], [31, END]


def test_every_branch_stands_in_its_place_and_absent_ones_have_length_zero():
    pairs = [Pair(CHOSEN_ANSWER, REJECTED_ANSWER), None]
    batch = make_batch(PROMPTS, TARGETS, pairs, prompt_width=4, branch_width=5)
    assert batch.prompt.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert batch.prompt_lengths.tolist() == [3, 1]
    assert batch.branches.shape == (2, 3, 5) and batch.branches.dtype == np.int32
    assert batch.branch_lengths.tolist() == [[2, 3, 2], [3, 0, 0]]
    assert batch.branches[0, batch.roles.target].tolist() == [11, END, 0, 0, 0]
    assert batch.branches[0, batch.roles.chosen].tolist() == [*CHOSEN_ANSWER, 0, 0]
    assert batch.branches[0, batch.roles.rejected].tolist() == [*REJECTED_ANSWER, 0, 0, 0]
    assert batch.branches[1, 1:].sum() == 0
    assert batch.pair_mask.tolist() == [True, False]
    assert batch.reference is None
    real = 3 + 1 + (2 + 3 + 2) + 3
    assert batch.padding_share() == pytest.approx(1 - real / (2 * 4 + 2 * 3 * 5))


def test_a_target_that_is_the_rejected_candidate_is_there_once():
    pairs = [None, Pair(CHOSEN_ANSWER, TARGETS[1], (-4.0, -3.0))]
    batch = make_batch(
        PROMPTS, TARGETS, pairs,
        prompt_width=4, branch_width=5, roles="target is rejected", with_reference=True,
    )  # fmt: skip
    assert batch.branches.shape == (2, 2, 5)
    assert batch.branch_lengths.tolist() == [[2, 0], [3, 3]]
    assert batch.reference.tolist() == [[0, 0], [-4, -3]]
    assert batch.reference.dtype == np.float32


def test_a_target_that_is_the_chosen_answer_is_there_once_and_must_be_it():
    pairs = [Pair(TARGETS[0], REJECTED_ANSWER), None]
    shape = {"prompt_width": 4, "branch_width": 5, "roles": "target is chosen"}
    batch = make_batch(PROMPTS, TARGETS, pairs, **shape)
    assert batch.branch_lengths.tolist() == [[2, 2], [3, 0]]
    assert batch.branches[0, batch.roles.rejected].tolist() == [*REJECTED_ANSWER, 0, 0, 0]
    with pytest.raises(ValueError, match="row 0"):
        make_batch(PROMPTS, TARGETS, [Pair(CHOSEN_ANSWER, REJECTED_ANSWER), None], **shape)


def test_a_batch_without_any_pair_keeps_its_shape_and_a_task_batch_has_targets_alone():
    faded = make_batch(PROMPTS, TARGETS, [None, None], prompt_width=4, branch_width=5)
    assert faded.branches.shape == (2, 3, 5) and not faded.pair_mask.any()
    task = make_batch(PROMPTS, TARGETS, [], prompt_width=4, branch_width=5)
    assert task.branches.shape == (2, 1, 5) and not task.pair_mask.any()


def test_a_row_that_is_wider_than_the_batch_is_never_cut_in_silence():
    with pytest.raises(ValueError):
        pad_rows([[1, 2, 3]], 2)
    with pytest.raises(ValueError):
        make_batch(PROMPTS, TARGETS, [], prompt_width=4, branch_width=2)
