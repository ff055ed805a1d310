"""The jitted sampler: prefill once, then one token at a time from a key-value cache.

Temperature, top-p, top-k, seed, end tokens and the length limit are traced values: within a
bucket of shapes nothing recompiles. Log-probs that come back are the raw model's, before
temperature and truncation, which is what a DPO reference needs.
"""

import functools
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emergent_alignment.generation.prefill import Prompts, placed_prompts, prefill
from emergent_alignment.losses import vocabulary_logits
from emergent_alignment.models.cache import Block, Room, append, empty_block, placed_block
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import unembedding
from emergent_alignment.models.generation_config import MAX_END_TOKENS
from emergent_alignment.models.placement import laid_out_for_decoding
from emergent_alignment.parallel.sharding import (
    DECODING,
    RULES,
    constrain,
    laid_out,
    placed_rows,
    replicated,
)

Traced = Array | np.ndarray | np.float32 | np.int32  # of the host, or in compiled code


@dataclass(frozen=True)
class SamplerSettings:
    """How to draw; every field is a traced scalar or array, none recompiles.

    temperature     0 is greedy
    top_p           keep the smallest set of likeliest tokens with at least this mass
    top_k           keep the k likeliest tokens; 0 keeps all
    end_tokens      int32[8], ids that end a row (unused places are -1)
    max_new_tokens  at most this many tokens a row, and no more than the compiled width
    """

    temperature: Traced
    top_p: Traced
    top_k: Traced
    end_tokens: Traced
    max_new_tokens: Traced


jax.tree_util.register_dataclass(SamplerSettings)


def sampler_settings(
    end_tokens: tuple[int, ...],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
) -> SamplerSettings:
    """Checked settings. Raises ValueError for a value outside its range."""
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be 0 (greedy) or more, not {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], not {top_p}")
    if top_k < 0 or max_new_tokens < 1:
        raise ValueError("top_k must be 0 (off) or more, and max_new_tokens at least 1")
    if len(end_tokens) > MAX_END_TOKENS:
        raise ValueError(f"at most {MAX_END_TOKENS} end tokens, not {len(end_tokens)}")
    ends = np.full(MAX_END_TOKENS, -1, np.int32)
    ends[: len(end_tokens)] = end_tokens
    return SamplerSettings(
        np.float32(temperature),
        np.float32(top_p),
        np.int32(top_k),
        ends,
        np.int32(max_new_tokens),
    )


@dataclass(frozen=True)
class Sampler:
    """What draws for the rows of a batch: `settings` that all share, and a key for each, `keys`
    [batch] or [batch, samples]."""

    settings: SamplerSettings
    keys: Array


jax.tree_util.register_dataclass(Sampler)


@dataclass(frozen=True)
class Samples:
    """tokens int32[..., width] (0 after a row's end), lengths int32[...] with the end token
    counted, ended bool[...] (False: stopped by the limit), log_probs float32[..., width], the
    raw model's, in nats a token (0 after the end). `...` is [batch] or [batch, samples]."""

    tokens: Array
    lengths: Array
    ended: Array
    log_probs: Array


jax.tree_util.register_dataclass(Samples)


@functools.partial(jax.jit, static_argnames=("config", "width", "dtype"))
def sample(
    config: ModelConfig,
    params: dict,
    prompt: Int[Array, "batch prompt"],
    prompt_lengths: Int[Array, "batch"],
    sampler: Sampler,
    *,
    width: int,
    before: Prompts | None = None,
    dtype: jnp.dtype = jnp.float32,
) -> Samples:
    """Up to `width` new tokens for each right-padded prompt row, stopping when all have ended.

    Each row draws from its own key and its own step number, so that its sample depends on
    nothing else in the batch. With keys [batch, samples], a prompt is read once for all its
    samples. Prompts go on from what was read `before`, one row of which stands for all of them. A
    row without a prompt (length 0) is padding and never runs.
    """
    prompts = prefill(config, params, prompt, prompt_lengths, before, dtype=dtype)
    one_each = sampler.keys.ndim == 1
    if one_each:
        sampler = replace(sampler, keys=sampler.keys[:, None])
    live = prompt_lengths > 0
    samples, _ = decode(config, params, prompts, sampler, live, width=width, dtype=dtype)
    return jax.tree.map(lambda x: x[:, 0], samples) if one_each else samples


@functools.partial(jax.jit, static_argnames=("config", "width", "keep_block", "dtype"))
def decode(
    config: ModelConfig,
    params: dict,
    prompts: Prompts,
    sampler: Sampler,
    live: Bool[Array, "batch"],
    *,
    width: int,
    keep_block: bool = False,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[Samples, Block | None]:
    """`sample` on top of what was read already; also the block of the new tokens, where it is to be
    kept. The block is whole, but lacks a row's last token, which nobody has read yet. Rows that are
    not `live` do not run.

    The loop is cut into stages, so that attention looks only at the slots that can be filled. On a
    mesh parameters, prompts and answers lie meanwhile as the table of decoding says; the samples
    are then whole on every device.
    """
    with laid_out(DECODING):
        params, prompts = laid_out_for_decoding(params, dtype), placed_prompts(prompts)
        options = {"width": width, "whole": keep_block, "dtype": dtype}
        state = begin(config, params, prompts, sampler, live, **options)
        for filled in stages(width):
            options = {"until": filled + 1, "filled": filled, "dtype": dtype}
            state = advance(config, params, prompts, sampler, state, **options)
    block = placed_block(state.block) if keep_block else None
    return jax.tree.map(replicated, state.samples), block


@dataclass(frozen=True)
class Decoding:
    """Answers under way: the number of tokens drawn, the samples, the last tokens int32[batch,
    samples], and the block of the new tokens but for the last."""

    step: Array
    samples: Samples
    token: Array
    block: Block


jax.tree_util.register_dataclass(Decoding)


def begin(
    config: ModelConfig,
    params: dict,
    prompts: Prompts,
    sampler: Sampler,
    live: Bool[Array, "batch"],
    *,
    width: int,
    whole: bool = False,
    dtype: jnp.dtype = jnp.float32,
) -> Decoding:
    """The first token of every answer; the block of the new ones is `whole` where it is to be read
    on after their end."""
    batch, branches = sampler.keys.shape
    samples = no_samples(live, branches, width)
    last = jnp.broadcast_to(prompts.last[:, None], (batch, branches, prompts.last.shape[-1]))
    matrix = unembedding(params, dtype)
    samples, token = draw(last, matrix, sampler, samples, config.logits_cap)
    block = empty_block(config, batch, branches, width, dtype, whole=whole)
    return Decoding(jnp.int32(1), samples, token, block)


def advance(
    config: ModelConfig,
    params: dict,
    prompts: Prompts,
    sampler: Sampler,
    state: Decoding,
    *,
    until: int | Int[Array, ""],
    filled: int,
    dtype: jnp.dtype = jnp.float32,
) -> Decoding:
    """Token by token, until `until` have been drawn or all answers have ended; attention looks
    at the first `filled` slots."""
    matrix = unembedding(params, dtype)
    limit = jnp.minimum(sampler.settings.max_new_tokens, state.samples.tokens.shape[-1])
    starts = jnp.broadcast_to(prompts.ends[:, None], sampler.keys.shape)

    def go_on(state: Decoding):
        return (state.step < jnp.minimum(limit, until)) & ~state.samples.ended.all()

    def one(state: Decoding) -> Decoding:
        hidden, block = append(
            config,
            params,
            placed_rows(state.token),
            starts + state.step - 1,
            Room(state.block, state.step - 1, filled),
            prompts.context,
            dtype=dtype,
        )
        samples, token = draw(hidden, matrix, sampler, state.samples, config.logits_cap)
        return Decoding(state.step + 1, samples, token, block)

    return jax.lax.while_loop(go_on, one, state)


def stages(width: int, first: int = 32) -> list[int]:
    """Numbers of slots that attention looks at, each for as long as they suffice."""
    slots = [first]
    while slots[-1] < width:
        slots.append(2 * slots[-1])
    return [*slots[:-1], width]


def no_samples(live: Bool[Array, "batch"], branches: int, width: int) -> Samples:
    """Nothing drawn yet; rows that are not `live` have ended."""
    shape = (live.shape[0], branches)
    return Samples(
        jnp.zeros((*shape, width), jnp.int32),
        jnp.zeros(shape, jnp.int32),
        jnp.broadcast_to(~live[:, None], shape),
        jnp.zeros((*shape, width), jnp.float32),
    )


def unfinished(samples: Samples, settings: SamplerSettings) -> Bool[Array, "batch branches"]:
    """Which rows have neither ended nor reached the limit."""
    limit = jnp.minimum(settings.max_new_tokens, samples.tokens.shape[-1])
    return ~samples.ended & (samples.lengths < limit)


def draw(
    hidden: Float[Array, "batch branches width"],
    matrix: Float[Array, "width vocabulary"],
    sampler: Sampler,
    samples: Samples,
    cap: float | None,
) -> tuple[Samples, Int[Array, "batch branches"]]:
    """One token for every unfinished row, from its hidden state, its key and the number of
    tokens that it has: (samples, tokens). `cap` is the config's logits_cap."""
    logits = vocabulary_logits(placed_rows(hidden), matrix, cap)
    logits = constrain(logits, "batch", None, "vocab")
    # Each device draws for rows of its own: what is cut by the vocabulary would be added up over
    # devices once for each of the many sums below.
    with laid_out(RULES):
        return _drawn(placed_rows(logits), sampler, samples)


def _drawn(logits, sampler: Sampler, samples: Samples):
    settings, keys = sampler.settings, placed_rows(sampler.keys)
    samples = jax.tree.map(placed_rows, samples)
    logits = logits.reshape(-1, logits.shape[-1])
    step_keys = jax.vmap(jax.random.fold_in)(keys.reshape(-1), samples.lengths.reshape(-1))
    token = choose(logits, step_keys, settings)
    picked = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
    log_prob = (picked - jax.nn.logsumexp(logits, axis=-1)).reshape(keys.shape)
    live = unfinished(samples, settings)
    token = jnp.where(live, token.reshape(keys.shape), 0)
    at_end = (token[..., None] == settings.end_tokens).any(-1)
    here = jnp.arange(samples.tokens.shape[-1]) == samples.lengths[..., None]
    here &= live[..., None]
    return Samples(
        jnp.where(here, token[..., None], samples.tokens),
        samples.lengths + live,
        samples.ended | at_end & live,
        jnp.where(here, log_prob[..., None], samples.log_probs),
    ), token


def choose(
    logits: Float[Array, "batch vocabulary"], keys: Array, settings: SamplerSettings
) -> Int[Array, "batch"]:
    """One token a row: greedy at temperature 0, else from the truncated distribution."""

    def drawn():
        scaled = logits / jnp.maximum(settings.temperature, 1e-6)
        probs = truncate(jax.nn.softmax(scaled, axis=-1), settings)
        uniform = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
        return _inverse_cdf(probs, uniform)

    greedy = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.lax.cond(settings.temperature > 0, drawn, lambda: greedy)


def truncate(
    probs: Float[Array, "batch vocabulary"], settings: SamplerSettings
) -> Float[Array, "batch vocabulary"]:
    """Zero what top-k and then top-p leave out (not renormalised). Tokens that tie with the
    last one kept are kept too.

    The cut is found by bisecting on the bits of a positive float, whose order is the order
    of its integer reading: exact in 31 passes, with no sort of the vocabulary.
    """

    def likeliest(probs):
        cut = _largest_cut(probs, jnp.ones_like(probs), settings.top_k)
        return jnp.where(probs >= cut, probs, 0.0)

    def nucleus(probs):
        cut = _largest_cut(probs, probs, settings.top_p * probs.sum(-1, keepdims=True))
        return jnp.where(probs >= cut, probs, 0.0)

    kept = jax.lax.cond(settings.top_k > 0, likeliest, lambda probs: probs, probs)
    return jax.lax.cond(settings.top_p < 1, nucleus, lambda probs: probs, kept)


def _largest_cut(probs: Array, weights: Array, wanted: Traced) -> Float[Array, "batch 1"]:
    """The largest c for which Σ weights[probs ≥ c] still reaches `wanted`."""

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        cut = jax.lax.bitcast_convert_type(middle, jnp.float32)
        enough = jnp.where(probs >= cut, weights, 0.0).sum(-1, keepdims=True) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low = jnp.zeros((probs.shape[0], 1), jnp.int32)
    high = jnp.full_like(low, jax.lax.bitcast_convert_type(jnp.float32(2.0), jnp.int32))
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return jax.lax.bitcast_convert_type(low, jnp.float32)


def _inverse_cdf(
    probs: Float[Array, "batch vocabulary"], uniform: Float[Array, "batch 2"], block: int = 256
) -> Int[Array, "batch"]:
    """Draw from unnormalised probs in two steps, first a block of tokens by the blocks' sums,
    then the token in it: one pass over the vocabulary and two short cumulative sums."""
    batch, vocabulary = probs.shape
    blocks = jnp.pad(probs, ((0, 0), (0, -vocabulary % block))).reshape(batch, -1, block)
    at = _pick(blocks.sum(-1), uniform[:, :1])
    inner = jnp.take_along_axis(blocks, at[:, None, None], axis=1)[:, 0]  # rows stay where they lie
    return (at * block + _pick(inner, uniform[:, 1:])).astype(jnp.int32)


def _pick(
    weights: Float[Array, "batch items"], share: Float[Array, "batch 1"]
) -> Int[Array, "batch"]:
    """The item at `share` of the total weight; only items of positive weight are picked."""
    ends = jnp.cumsum(weights, axis=-1)
    reached = (ends > share * ends[:, -1:]) & (weights > 0)
    # Rounding can leave nothing reached when share is next to 1: then the likeliest item.
    return jnp.where(reached.any(-1), jnp.argmax(reached, -1), jnp.argmax(weights, -1))
