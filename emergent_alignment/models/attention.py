"""Attention: what a query may see, and the numbers that come of it.

The decoder asks an *attention plan* for each layer's attention; a plan is a function
(layer, query, key, value, carry, window, cap, sinks) -> (output, carry). Here are those of any
platform: causal over whole rows, and a prompt with its branches; models/cache.py has blocks of
cached keys and values. All go through one primitive, `attend`, which puts several blocks of logits
under one softmax. models/prefix_attention.py chooses between these and the kernels of TPU and GPU.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

AttentionPlan = Callable[..., tuple[Float[Array, "batch tokens heads head_dim"], Any]]

# Queries that meet all keys at once; more go through in chunks, so that no array of all queries
# by all keys is made, and the backward pass computes each chunk's logits again.
QUERY_CHUNK = 512


def attend(
    query: Float[Array, "batch branches queries heads head_dim"],
    sources: list[tuple[Array, Array, Array]],
    cap: float | None = None,
    sinks: Float[Array, "heads"] | None = None,
) -> Float[Array, "batch branches queries heads head_dim"]:
    """One softmax over several sources, each (key, value, mask), without joining them.

    A source is shared by all branches, its key and value [batch, keys, kv_heads, head_dim],
    or has one part a branch, [batch, branches, keys, kv_heads, head_dim]; with a batch of 1 it
    is shared by all rows, too, which then meet it in one product. Masks are
    Bool[batch, branches, queries, keys] or broadcast to it. Logits and softmax are float32;
    a query that may see nothing at all gives zeros. With a `cap` c a logit x becomes
    c · tanh(x / c) (Gemma 2, 2408.00118, section 2). `sinks` are one more logit of each head, to
    which no value belongs: what a query gives it, it takes from nowhere (gpt-oss, 2508.10925,
    section 2.2; after Xiao et al. 2023, 2309.17453).
    """
    queries = query.shape[2]
    if queries <= QUERY_CHUNK:
        return _attend_at_once(query, sources, cap, sinks)
    num_chunks = -(-queries // QUERY_CHUNK)
    padding = num_chunks * QUERY_CHUNK - queries

    def chunks(x):
        x = jnp.broadcast_to(x, (*x.shape[:2], queries, *x.shape[3:]))
        x = jnp.pad(x, [(0, 0), (0, 0), (0, padding), *[(0, 0)] * (x.ndim - 3)])
        x = x.reshape(*x.shape[:2], num_chunks, QUERY_CHUNK, *x.shape[3:])
        return jnp.moveaxis(x, 2, 0)

    @jax.checkpoint
    def one_chunk(part):
        own, masks = part
        kept = [(key, value, mask) for (key, value, _), mask in zip(sources, masks)]
        return _attend_at_once(own, kept, cap, sinks)

    attended = jax.lax.map(one_chunk, (chunks(query), [chunks(mask) for _, _, mask in sources]))
    attended = jnp.moveaxis(attended, 0, 2)
    return attended.reshape(*attended.shape[:2], -1, *attended.shape[4:])[:, :, :queries]


def _attend_at_once(
    query: Array,
    sources: list[tuple[Array, Array, Array]],
    cap: float | None,
    sinks: Array | None,
) -> Array:
    batch, branches, queries, _, head_dim = query.shape
    kv_heads = sources[0][0].shape[-2]
    grouped = (query * head_dim**-0.5).reshape(batch, branches, queries, kv_heads, -1, head_dim)
    sources = [
        (_of_all_rows(key, batch), _of_all_rows(value, batch), m) for key, value, m in sources
    ]
    letters = [{3: "skh", 4: "bskh", 5: "bnskh"}[key.ndim] for key, _, _ in sources]
    logits = []
    for (key, _, mask), source in zip(sources, letters):
        product = jnp.einsum(
            f"bnqkgh,{source}->bnkgqs", grouped, key, preferred_element_type=jnp.float32
        )
        if cap is not None:
            product = cap * jnp.tanh(product / cap)
        logits.append(jnp.where(mask[:, :, None, None], product, -jnp.inf))
    lowest = jnp.finfo(jnp.float32).min
    peak = functools.reduce(jnp.maximum, (x.max(-1, keepdims=True, initial=lowest) for x in logits))
    if sinks is not None:
        sinks = sinks.astype(jnp.float32).reshape(kv_heads, -1, 1, 1)
        peak = jnp.maximum(peak, sinks)
    weights = [jnp.exp(block - jax.lax.stop_gradient(peak)) for block in logits]
    total = sum(block.sum(-1, keepdims=True) for block in weights)
    if sinks is not None:
        total += jnp.exp(sinks - jax.lax.stop_gradient(peak))
    share = 1 / jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
    output = sum(
        jnp.einsum(f"bnkgqs,{source}->bnqkgh", (block * share).astype(value.dtype), value)
        for block, (_, value, _), source in zip(weights, sources, letters)
    )
    return output.reshape(query.shape)


def _of_all_rows(part: Array, batch: int) -> Array:
    """A key or value without its axis of rows, where one row stands for many."""
    shared = part.shape[0] == 1 < batch
    if shared and part.ndim == 5:  # with parts of its own for each branch
        return jnp.broadcast_to(part, (batch, *part.shape[1:]))
    return part[0] if shared else part


def attend_rows(
    query: Array,
    key: Array,
    value: Array,
    mask: Array,
    cap: float | None = None,
    sinks: Array | None = None,
) -> Array:
    """`attend` for plain rows: query [batch, queries, heads, head_dim], one source."""
    return attend(query[:, None], [(key, value, mask[:, None])], cap, sinks)[:, 0]


def sees(
    query_positions: Int[Array, "*rows queries"],
    key_positions: Int[Array, "*rows keys"],
    window: int | None,
) -> Bool[Array, "*rows queries keys"]:
    """Causal by position, and no further back than the layer's sliding window."""
    distance = query_positions[..., :, None] - key_positions[..., None, :]
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def causal_plan(
    positions: Int[Array, "batch tokens"], segments: Int[Array, "batch tokens"] | None = None
) -> AttentionPlan:
    """Every token sees the tokens of its row (and segment) at its own position or before."""

    def plan(layer, query, key, value, carry, window=None, cap=None, sinks=None):
        mask = sees(positions, positions, window)
        if segments is not None:
            mask &= segments[:, :, None] == segments[:, None, :]
        return attend_rows(query, key, value, mask, cap, sinks), carry

    return plan


@dataclass(frozen=True)
class PrefixLayout:
    """The static shape of a training row: a prompt of P tokens, then N branches of R each."""

    prompt: int
    branches: int
    branch: int

    def positions(self, prompt_lengths: Int[Array, "batch"]) -> Int[Array, "batch tokens"]:
        """int32 positions of [prompt, branch 0, branch 1, …]: each branch goes on from the
        prompt's true length."""
        start = jnp.arange(self.prompt, dtype=jnp.int32)
        branch = jnp.tile(jnp.arange(self.branch, dtype=jnp.int32), self.branches)
        return jnp.concatenate(
            [
                jnp.broadcast_to(start, (prompt_lengths.shape[0], self.prompt)),
                prompt_lengths.astype(jnp.int32)[:, None] + branch[None],
            ],
            axis=1,
        )


def prefix_mask(
    layout: PrefixLayout, prompt_lengths: Int[Array, "batch"], window: int | None = None
) -> Bool[Array, "batch tokens tokens"]:
    """The square itself, [query, key]: who sees whom in each row, within the layer's window."""
    positions = layout.positions(prompt_lengths)
    owner = jnp.repeat(jnp.arange(layout.branches), layout.branch) + 1
    owner = jnp.concatenate([jnp.zeros(layout.prompt, jnp.int32), owner])
    in_prompt = owner == 0
    real = ~in_prompt[None] | (jnp.arange(owner.size)[None] < prompt_lengths[:, None])
    related = (owner[:, None] == owner[None]) | in_prompt[None]
    return sees(positions, positions, window) & related[None] & real[:, None, :]


def dense_prefix_plan(layout: PrefixLayout, prompt_lengths: Int[Array, "batch"]) -> AttentionPlan:
    """A branch token sees the prompt's true tokens and its own branch; the prompt sees itself.
    By a mask of tokens × tokens: the reference."""

    def plan(layer, query, key, value, carry, window=None, cap=None, sinks=None):
        mask = prefix_mask(layout, prompt_lengths, window)
        return attend_rows(query, key, value, mask, cap, sinks), carry

    return plan


def blocks_prefix_plan(layout: PrefixLayout, prompt_lengths: Int[Array, "batch"]) -> AttentionPlan:
    """`dense_prefix_plan` without that square: branch × prompt and causal branch × branch under one
    softmax."""
    size, shape = layout.prompt, (layout.branches, layout.branch)
    positions = layout.positions(prompt_lengths)
    start, rest = positions[:, :size], positions[:, size:]
    own = rest[:, : layout.branch]
    real = (jnp.arange(size)[None] < prompt_lengths[:, None])[:, None, None]

    def plan(layer, query, key, value, carry, window=None, cap=None, sinks=None):
        def parts(x):
            return x[:, :size], x[:, size:].reshape(x.shape[0], *shape, *x.shape[2:])

        queries, keys, values = parts(query), parts(key), parts(value)
        visible = sees(start, start, window)
        output = attend_rows(queries[0], keys[0], values[0], visible, cap, sinks)
        if layout.branches == 0:
            return output, carry
        visible = sees(rest, start, window).reshape(rest.shape[0], *shape, size) & real
        shared = (keys[0], values[0], visible)
        private = (keys[1], values[1], sees(own, own, window)[:, None])
        branches = attend(queries[1], [shared, private], cap, sinks)
        return jnp.concatenate([output, branches.reshape(rest.shape + query.shape[2:])], 1), carry

    return plan
