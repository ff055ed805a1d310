"""A prompt with its branches gives the log-probs and gradients of separate rows, through the very
function that the training step calls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_decoder
from causal_rows import MIXED_WINDOWS, assert_close_trees, causal_logits, random_tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_alignment.data.batches import ROLES, Batch
from emergent_alignment.training.branches import branch_log_probs
from emergent_alignment.training.step_settings import StepSettings

ROWS, PROMPT, BRANCH = 2, 6, 5


def random_batch(seed: int, branches: int) -> Batch:
    """Random lengths, branches without a token among them, and random tokens in the padding."""
    draw = np.random.default_rng(seed)
    return Batch(
        prompt=random_tokens(seed, ROWS, PROMPT),
        prompt_lengths=draw.integers(1, PROMPT + 1, ROWS).astype(np.int32),
        branches=random_tokens(seed + 1, ROWS, branches, BRANCH),
        branch_lengths=draw.integers(0, BRANCH + 1, (ROWS, branches)).astype(np.int32),
        pair_mask=np.ones(ROWS, bool),
        reference=None,
        roles=ROLES["separate"],
    )


def separate_rows(batch: Batch, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each branch after its prompt's true tokens as a row of its own, int32[rows · branches,
    tokens], and the weight of every token, where it stands in that row."""
    rows = np.zeros((*batch.branch_lengths.shape, PROMPT + BRANCH), np.int32)
    moved = np.zeros(rows.shape, np.float32)
    for row, branch in np.ndindex(batch.branch_lengths.shape):
        start, length = batch.prompt_lengths[row], batch.branch_lengths[row, branch]
        rows[row, branch, :start] = batch.prompt[row, :start]
        rows[row, branch, start : start + length] = batch.branches[row, branch, :length]
        moved[row, branch, start : start + length] = weights[row, branch, :length]
    return rows.reshape(-1, rows.shape[-1]), moved.reshape(-1, rows.shape[-1])


@functools.cache
def shared_gradient(config):
    """jitted (params, batch, weights) → (Σ log-prob · weight and the log-probs, gradient)."""
    static = StepSettings(config, None, chunk_size=16)

    def total(params, batch, weights):
        log_probs = branch_log_probs(static, params, batch)
        return (log_probs * weights).sum(), log_probs

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@functools.cache
def separate_gradient(config):
    """jitted (params, rows, weights) → (Σ log-prob · weight, gradient), of plain causal rows."""

    def total(params, rows, weights):
        log_probs = jax.nn.log_softmax(causal_logits(config, params, rows))
        taken = jnp.take_along_axis(log_probs[:, :-1], rows[:, 1:, None], axis=-1)[..., 0]
        return (taken * weights[:, 1:]).sum()

    return jax.jit(jax.value_and_grad(total))


@pytest.mark.parametrize(
    ("family", "changes", "branches"),
    [("llama", {}, 1), ("mistral", {}, 2), ("qwen3", MIXED_WINDOWS, 3)],
)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_shared_prefix_rows_equal_separate_rows(
    tiny_config, tiny_params, family, changes, branches, seed
):
    """… in every log-prob (of a decoder written head by head in float64) and in the gradient."""
    config = tiny_config(family, **changes)
    params, batch = tiny_params(config), random_batch(seed, branches)
    weights = np.random.default_rng(seed).standard_normal(batch.branches.shape).astype(np.float32)
    weights *= np.arange(BRANCH) < batch.branch_lengths[..., None]
    (value, ours), gradient = shared_gradient(config)(params, batch, weights)
    for row, branch in np.ndindex(ROWS, branches):
        start, length = batch.prompt_lengths[row], batch.branch_lengths[row, branch]
        answer = batch.branches[row, branch, :length]
        alone = np.concatenate([batch.prompt[row, :start], answer])
        log_probs = reference_decoder.log_probs(config, params, alone)
        np.testing.assert_allclose(
            ours[row, branch, :length],
            log_probs[np.arange(start - 1, start - 1 + length), answer],
            rtol=1e-5,
            atol=1e-5,
            err_msg=f"row {row}, branch {branch}",
        )
    total, expected = separate_gradient(config)(params, *separate_rows(batch, weights))
    # Terms of both signs: what rounding leaves of their sum goes by their sizes, not by its own.
    np.testing.assert_allclose(value, total, rtol=0, atol=1e-6 * np.abs(ours * weights).sum())
    assert_close_trees(gradient, expected, 1e-5)
