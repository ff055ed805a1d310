"""One pass of a model over its prompts, and over answers on top of them.

A prompt is prefilled once; from its block come log-probs of given answers, sampled answers
(generation/sampler.py) and replies to questions.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from emergent_alignment.models.cache import Block, placed_block, read
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import sharded_token_log_probs
from emergent_alignment.parallel.sharding import constrain, replicated


@dataclass(frozen=True)
class Prompts:
    """What has been read of each row: `context`, its blocks; `ends` int32[batch], how many
    tokens that is; `last`, the final hidden state [batch, width] of the last of them, which
    predicts what comes next."""

    context: tuple[Block, ...]
    ends: Array
    last: Array


jax.tree_util.register_dataclass(Prompts)


def placed_prompts(prompts: Prompts) -> Prompts:
    """What was read, placed as the axes in force say."""
    context = tuple(map(placed_block, prompts.context))
    return Prompts(
        context, constrain(prompts.ends, "batch"), constrain(prompts.last, "batch", "width")
    )


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def prefill(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch tokens"],
    lengths: Int[Array, "batch"],
    before: Prompts | None = None,
    *,
    dtype: jnp.dtype = jnp.float32,
) -> Prompts:
    """Read right-padded rows, on top of what was read `before`. No logits are made."""
    context = before.context if before is not None else ()
    starts = before.ends if before is not None else jnp.zeros_like(lengths)
    starts = jnp.broadcast_to(starts, lengths.shape)
    hidden, block = read(
        config, params, tokens[:, None], lengths[:, None], starts[:, None], context, dtype=dtype
    )
    return Prompts((*context, block), starts + lengths, last_hidden(hidden, lengths[:, None])[:, 0])


@functools.partial(jax.jit, static_argnames=("config", "chunk_size", "dtype"))
def answer_log_probs(
    config: ModelConfig,
    params: dict,
    prompts: Prompts,
    answers: Int[Array, "batch branches tokens"],
    lengths: Int[Array, "batch branches"],
    *,
    chunk_size: int = 256,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[Float[Array, "batch branches"], Block]:
    """float32 log P(answer | prompt) of each branch, summed over its true tokens, and the
    answers' own block, whole, so that a question can be asked about them or their beginnings. The
    log-probs are whole on every device."""
    given = config, params, prompts, answers, lengths
    log_probs, block = _token_log_probs(*given, chunk_size=chunk_size, dtype=dtype)
    return replicated(log_probs.sum(-1)), block


@functools.partial(jax.jit, static_argnames=("config", "chunk_size", "dtype"))
def answer_token_log_probs(
    config: ModelConfig,
    params: dict,
    prompts: Prompts,
    answers: Int[Array, "batch branches tokens"],
    lengths: Int[Array, "batch branches"],
    *,
    chunk_size: int = 256,
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "batch branches tokens"]:
    """float32 log P of each token of an answer behind its prompt and what is before it, 0 behind
    its end; whole on every device."""
    given = config, params, prompts, answers, lengths
    return replicated(_token_log_probs(*given, chunk_size=chunk_size, dtype=dtype)[0])


def _token_log_probs(
    config, params, prompts, answers, lengths, *, chunk_size, dtype
) -> tuple[Float[Array, "batch branches tokens"], Block]:
    batch, branches, size = answers.shape
    starts = jnp.broadcast_to(prompts.ends[:, None], lengths.shape)
    given = config, params, answers, lengths, starts, prompts.context
    hidden, block = read(*given, whole=True, dtype=dtype)
    first = jnp.broadcast_to(prompts.last[:, None, None], (batch, branches, 1, hidden.shape[-1]))
    predicting = jnp.concatenate([first, hidden[:, :, :-1]], axis=2)
    log_probs = sharded_token_log_probs(
        params,
        predicting.reshape(batch, branches * size, -1),
        answers.reshape(batch, -1),
        chunk_size=chunk_size,
        cap=config.logits_cap,
        dtype=dtype,
    ).reshape(answers.shape)
    true = jnp.arange(size) < lengths[..., None]
    return jnp.where(true, log_probs, 0.0), block


def last_hidden(
    hidden: Float[Array, "batch branches tokens width"], lengths: Int[Array, "batch branches"]
) -> Float[Array, "batch branches width"]:
    """The hidden state of each branch's last true token."""
    at = jnp.maximum(lengths - 1, 0)[..., None, None]
    return jnp.take_along_axis(hidden, at, axis=2)[:, :, 0]
