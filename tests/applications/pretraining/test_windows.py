"""Packing: nothing lost, nothing twice, nothing seen that is another document's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_batches import assert_trees_close, random_batch

from emergent_alignment.applications.pretraining.corpus import Document
from emergent_alignment.applications.pretraining.view import (
    WindowView,
    window_hidden,
    window_log_probs,
)
from emergent_alignment.applications.pretraining.windows import (
    Packing,
    PackingSettings,
    TextBatch,
    held_out_documents,
    is_held_out,
    pack,
)
from emergent_alignment.data.batches import ROLES
from emergent_alignment.errors import UserError
from emergent_alignment.models.forward import unembedding
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.step import loss_and_gradients
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.terms import HYBRID, KLTerm

documents_of = st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=40), max_size=12)


@given(documents_of, st.integers(1, 17))
def test_every_token_of_every_document_is_there_once_and_in_order(documents, size):
    windows = pack(documents, size)
    real = windows.segments > 0
    flat = [token for tokens in documents for token in tokens]
    assert windows.tokens[real].tolist() == flat
    assert real.size - real.sum() < size, "only the last window is padded"
    # Segments and positions cut the tokens into the documents' pieces.
    pieces, at = [], 0
    for tokens in documents:
        while tokens:
            room = size - at % size
            pieces.append(tokens[:room])
            at, tokens = at + len(pieces[-1]), tokens[room:]
    found = []
    for row in range(len(windows)):
        for segment in range(1, windows.segments[row].max(initial=0) + 1):
            own = windows.segments[row] == segment
            found.append(windows.tokens[row, own].tolist())
            assert windows.positions[row, own].tolist() == list(range(own.sum()))
    assert found == pieces


@given(documents_of, st.integers(1, 17))
def test_every_token_but_a_document_s_first_is_predicted_once(documents, size):
    windows = pack(documents, size)
    expected = [token for tokens in documents for token in tokens[1:]]
    assert windows.targets[windows.predicts].tolist() == expected
    assert not windows.predicts[windows.segments == 0].any()


class Numbered:
    """A corpus whose document n is the number n, some times over; it counts what is read."""

    identity = "numbered"

    def __init__(self, count):
        self.count, self.read = count, []

    def documents(self, first=0):
        for number in range(first, self.count):
            self.read.append(number)
            yield Document(str(number), "x" * (1 + 7 * number % 11))


def as_numbers(documents):
    return [[int(document.name)] * len(document.text) for document in documents]


def packing(count, *, size=4, block=5, heldout=0.2, seed=3):
    return Packing(Numbered(count), as_numbers, PackingSettings(size, block, heldout, seed))


@settings(max_examples=30)
@given(st.integers(6, 40), st.integers(1, 9), st.integers(4, 9), st.sampled_from([0.0, 0.2]))
def test_a_pass_sees_every_document_that_is_trained_on_once_and_no_other(
    count, size, block, heldout
):
    found = packing(count, size=size, block=block, heldout=heldout)
    trained = [n for n in range(count) if not is_held_out(n, heldout)]
    expected = np.bincount([n for n in trained for _ in range(1 + 7 * n % 11)], minlength=count)
    windows = found.windows(0, 1)
    num_windows = 1
    while not (np.bincount(tokens_of(windows), minlength=count) >= expected).all():
        num_windows += 1
        windows = found.windows(0, num_windows)
        assert num_windows < 2000
    np.testing.assert_array_equal(np.bincount(tokens_of(windows), minlength=count), expected)
    kept = [int(document.name) for document in held_out_documents(Numbered(count), heldout)]
    assert sorted(trained + kept) == list(range(count))


def tokens_of(windows):
    return windows.tokens[windows.segments > 0]


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@settings(max_examples=30)
@given(st.integers(6, 30), st.integers(0, 60), st.integers(1, 7))
def test_windows_are_a_function_of_their_number_however_one_comes_to_them(count, first, rows):
    through = packing(count)
    for start in range(0, first, 3):
        through.windows(start, 3)
    assert_same(through.windows(first, rows), packing(count).windows(first, rows))


def test_a_resumed_packing_reads_only_the_block_that_it_is_in(tmp_path):
    kept = tmp_path / "blocks.json"
    before = packing(40)
    before.remember(kept, "a corpus")
    expected = before.windows(30, 2)
    resumed = packing(40)
    resumed.remember(kept, "a corpus")
    assert_same(resumed.windows(30, 2), expected)
    assert min(resumed._corpus.read) > 4, "nothing that stands before is read again"
    other = packing(40)
    other.remember(kept, "another corpus")
    other.windows(30, 2)
    assert other._corpus.read[0] == 0, "of another corpus the file knows nothing"


def test_passes_have_orders_of_their_own_and_seeds_too():
    per_pass = len(packing(5, block=9, heldout=0.0)._packed(0)[0])
    passes = packing(5, block=9, heldout=0.0)
    first, second = passes.windows(0, per_pass), passes.windows(per_pass, per_pass)
    assert sorted(tokens_of(first)) == sorted(tokens_of(second))
    assert tokens_of(first).tolist() != tokens_of(second).tolist()
    other = packing(5, block=9, heldout=0.0, seed=4).windows(0, per_pass)
    assert tokens_of(first).tolist() != tokens_of(other).tolist()


@pytest.mark.parametrize("count", [0, 1])
def test_a_corpus_shorter_than_one_window_is_an_error(count):
    with pytest.raises(UserError, match=f"{count} documents with {count} tokens.*window of 4;"):
        packing(count).windows(0, 1)


# ------------------------------------------------------------------------ on a model


@pytest.fixture(scope="module")
def step(tiny_config):
    return StepSettings(tiny_config("llama"), None, chunk_size=16)


@pytest.fixture(scope="module")
def params(step, tiny_params):
    return tiny_params(step.config)


@pytest.fixture(scope="module")
def log_probs_of(step, params):
    return jax.jit(lambda windows: window_log_probs(step, params, windows))


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_a_packed_window_s_log_probs_are_those_of_each_document_on_its_own(log_probs_of, seed):
    draw = np.random.default_rng(seed)
    size = 16
    lengths = draw.integers(1, 12, size=8)
    documents = [draw.integers(1, 96, size=length).tolist() for length in lengths]
    packed = pack(documents, size).rows(np.arange(2))
    together = np.asarray(log_probs_of(packed))
    for row in range(2):
        for segment in range(1, packed.segments[row].max() + 1):
            own = packed.segments[row] == segment
            tokens = packed.tokens[row, own].tolist()
            last = packed.targets[row, own][-1:].tolist() if packed.predicts[row, own][-1] else []
            if len(tokens + last) < 2:
                continue
            alone = pack([tokens + last], size + 1)
            alone = jax.tree.map(lambda x: np.repeat(x[:, :size], 2, 0), alone)
            expected = np.asarray(log_probs_of(alone))[0, : own.sum()]
            predicts = packed.predicts[row, own]
            np.testing.assert_allclose(together[row, own][predicts], expected[predicts], atol=1e-5)


def test_the_loss_is_over_all_next_tokens_whatever_the_microbatches(step, params):
    draw = np.random.default_rng(0)
    documents = [draw.integers(1, 96, size=size).tolist() for size in (5, 30, 1, 17, 9)]
    batch = TextBatch(pack(documents, 16))
    assert len(batch.windows) == 4
    objective = Objective(HYBRID.terms, WindowView)
    found = [
        jax.jit(loss_and_gradients, static_argnums=(0, 4))(
            dataclasses.replace(step, accumulation=parts), params, params, batch, objective
        )
        for parts in (1, 2)
    ]
    log_probs = window_log_probs(step, params, jax.tree.map(jnp.asarray, batch.windows))
    by_hand = -jnp.where(batch.windows.predicts, log_probs, 0.0).sum() / (62 - 5)
    np.testing.assert_allclose(found[0][1]["loss"], by_hand, rtol=1e-6)
    for left, right in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_the_kl_holds_every_predicted_token_of_the_windows_to_the_frozen_copy(step, params):
    """With reviewed continuations in the batch, whose pairs it leaves alone."""
    draw = np.random.default_rng(0)
    documents = [draw.integers(1, 96, size=size).tolist() for size in (5, 30, 1, 17, 9)]
    pairs = dataclasses.replace(
        random_batch(rows=4, branches=2),
        roles=ROLES["no target"],
        reference=jnp.full((4, 2), -20.0),
    )
    batch = jax.tree.map(jnp.asarray, TextBatch(pack(documents, 16), pairs))
    moved = jax.tree.map(lambda x: x * 1.1, params)
    objective = Objective((*HYBRID.terms[:-1], KLTerm(0.5)), WindowView)
    compute = jax.jit(loss_and_gradients, static_argnums=(0, 4))
    _, metrics = whole = compute(step, moved, params, batch, objective)
    log_p, log_q = (
        jax.nn.log_softmax(window_hidden(step, p, batch.windows) @ unembedding(p))
        for p in (moved, params)
    )
    kept = batch.windows.predicts
    kl = jnp.where(kept, (jnp.exp(log_p) * (log_p - log_q)).sum(-1), 0.0).sum() / kept.sum()
    assert kl > 0.01
    np.testing.assert_allclose(metrics["kl_target"], kl, rtol=1e-4)
    others = metrics["task_loss"] + metrics["alignment_loss"]
    np.testing.assert_allclose(metrics["loss"], others + 0.5 * kl, rtol=1e-5)
    parts = dataclasses.replace(step, accumulation=2)
    assert_trees_close(compute(parts, moved, params, batch, objective), whole, 1e-5)
