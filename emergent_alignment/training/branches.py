"""The forward pass over prompts with their branches: each prompt's tokens are computed once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emergent_alignment.data.batches import Batch
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.forward import sharded_token_log_probs, watched_forward
from emergent_alignment.models.prefix_attention import prefix_plan
from emergent_alignment.training.step_settings import StepSettings


def branch_masks(batch: Batch) -> Bool[Array, "batch branches tokens"]:
    """Which branch positions hold a token, from lengths alone."""
    return jnp.arange(batch.branches.shape[-1]) < batch.branch_lengths[..., None]


def target_mask(batch: Batch) -> Bool[Array, "batch tokens"]:
    """Which tokens the task loss learns: those of the target branch, none where there is none."""
    if batch.roles.target is None:
        return jnp.zeros((batch.branches.shape[0], batch.branches.shape[-1]), bool)
    return branch_masks(batch)[:, batch.roles.target]


def branch_hidden(
    settings: StepSettings, params: dict, batch: Batch
) -> tuple[
    Float[Array, "batch branches 1 width"],
    Float[Array, "batch branches tokens width"],
    Float[Array, "layers 2 experts"] | None,
]:
    """The final hidden states of the prompt's last true token, before each branch, and of each
    branch's own tokens; and the loads of the experts, of all true tokens (models/experts.py)."""
    rows, size = batch.prompt.shape
    _, branches, length = batch.branches.shape
    layout = PrefixLayout(size, branches, length)
    tokens = jnp.concatenate([batch.prompt, batch.branches.reshape(rows, -1)], axis=1)
    of_prompt = jnp.arange(size) < batch.prompt_lengths[:, None]
    hidden, loads = watched_forward(
        settings.config,
        params,
        tokens,
        layout.positions(batch.prompt_lengths),
        prefix_plan(layout, batch.prompt_lengths, settings.attention),
        jnp.concatenate([of_prompt, branch_masks(batch).reshape(rows, -1)], axis=1),
        dtype=settings.dtype,
        remat=settings.remat,
    )
    last = jnp.maximum(batch.prompt_lengths - 1, 0)[:, None, None]
    first = jnp.take_along_axis(hidden[:, :size], last, axis=1)
    first = jnp.broadcast_to(first[:, None], (rows, branches, 1, hidden.shape[-1]))
    return first, hidden[:, size:].reshape(rows, branches, length, -1), loads


def predicting_hidden(
    settings: StepSettings, params: dict, batch: Batch
) -> Float[Array, "batch branches tokens width"]:
    """The final hidden states that predict each branch token; the first token of each branch is
    predicted by the prompt's last true token."""
    return predicting_hidden_and_loads(settings, params, batch)[0]


def predicting_hidden_and_loads(
    settings: StepSettings, params: dict, batch: Batch
) -> tuple[Float[Array, "batch branches tokens width"], Float[Array, "layers 2 experts"] | None]:
    """`predicting_hidden`, and the loads of the experts, where the model has any."""
    first, own, loads = branch_hidden(settings, params, batch)
    return jnp.concatenate([first, own[:, :, :-1]], axis=2), loads


def log_probs_from(
    settings: StepSettings,
    params: dict,
    hidden: Float[Array, "batch branches tokens width"],
    batch: Batch,
) -> Float[Array, "batch branches tokens"]:
    """float32 log-probs of every branch token, from the hidden states that predict it."""
    rows, branches, length = batch.branches.shape
    log_probs = sharded_token_log_probs(
        params,
        hidden.reshape(rows, branches * length, -1),
        batch.branches.reshape(rows, -1),
        chunk_size=settings.chunk_size,
        cap=settings.config.logits_cap,
        dtype=settings.dtype,
    )
    return log_probs.reshape(rows, branches, length)


def branch_log_probs(
    settings: StepSettings, params: dict, batch: Batch
) -> Float[Array, "batch branches tokens"]:
    """float32 log-probs of every branch token."""
    return log_probs_from(settings, params, predicting_hidden(settings, params, batch), batch)


def answers_of_pairs(
    batch: Batch, log_probs: Float[Array, "batch branches tokens"]
) -> Float[Array, "batch 2"]:
    """log P(chosen) and log P(rejected) of each row, as a batch carries them for its reference."""
    summed = jnp.where(branch_masks(batch), log_probs, 0.0).sum(-1)
    return jnp.stack([summed[:, batch.roles.chosen], summed[:, batch.roles.rejected]], axis=-1)


def pair_log_probs(settings: StepSettings, params: dict, batch: Batch) -> Float[Array, "batch 2"]:
    """`answers_of_pairs` under a model's parameters."""
    return answers_of_pairs(batch, branch_log_probs(settings, params, batch))


reference_log_probs = jax.jit(pair_log_probs, static_argnums=0)
