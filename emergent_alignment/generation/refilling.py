"""Continuous batching: rows that have ended make place for the next prompts.

New tokens go round a ring of slots, the same slot for all rows, so that rows of every age are
written at once and in place. A row lives at most as many steps as there are slots, so it never
overwrites itself; what an earlier row left in the ring is hidden by its positions.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from emergent_alignment.data.batches import pad_rows
from emergent_alignment.generation.prefill import Prompts, prefill
from emergent_alignment.generation.sampler import (
    SamplerSettings,
    Samples,
    draw,
    no_samples,
    unfinished,
)
from emergent_alignment.models.cache import EMPTY, Block, Room, append, empty_block
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.model import unembedding

# Rows that end before new prompts are read, as a share of the batch: few wait, and what is read
# at once is not too little. benchmarks/refilling.py measures it.
GROUP_SHARE = 8


@dataclass(frozen=True)
class Running:
    """A batch under way: what was read of each row's own prompt, the ring of its new tokens, its
    samples [batch, 1], its last token [batch, 1], its key [batch, 1], and how many steps the
    ring has gone."""

    prompts: Prompts
    ring: Block
    samples: Samples
    token: Array
    keys: Array
    step: Array


jax.tree_util.register_dataclass(Running)


def sample_refilling(
    config: ModelConfig,
    params: dict,
    prompts: list[list[int]],
    keys: Key[Array, "prompts"],
    settings: SamplerSettings,
    *,
    batch_size: int,
    prompt_width: int,
    width: int,
    before: Prompts | None = None,
    dtype: jnp.dtype = jnp.float32,
) -> Iterator[tuple[list[int], Samples]]:
    """(indices of prompts, their samples [indices, 1] as numpy), as they end.

    Prompts are at most `prompt_width` tokens; each draws from its own key, and its sample
    depends on nothing else in the batch. They go on from one row that was read `before` and
    stands for all of them.
    """
    group = max(batch_size // GROUP_SHARE, 1)
    running = _nothing(config, batch_size, prompt_width, width, keys[:1], dtype)
    owners, waiting = np.full(batch_size, -1), list(range(len(prompts)))
    while True:
        going = np.asarray(unfinished(running.samples, settings))[:, 0]
        ended = np.flatnonzero(~going & (owners >= 0))
        if ended.size:
            leaves, tree = jax.tree.flatten(jax.device_get(running.samples))
            yield owners[ended].tolist(), tree.unflatten([leaf[ended] for leaf in leaves])
            owners[ended] = -1
        free = np.flatnonzero(owners < 0)
        while waiting and free.size:
            places, free = free[:group], free[group:]
            chosen, waiting = waiting[: len(places)], waiting[len(places) :]
            places = places[: len(chosen)]
            owners[places] = chosen
            # Places outside the batch are written nowhere.
            padding = [batch_size] * (group - len(chosen))
            rows = [prompts[i] for i in chosen] + [[]] * len(padding)
            running = _refill(
                config,
                params,
                running,
                np.array([*places, *padding], np.int32),
                *pad_rows(rows, prompt_width),
                keys[np.array(chosen + [0] * len(padding))],
                settings,
                before,
                dtype=dtype,
            )
        if (owners < 0).all():
            return
        num_idle = int((owners < 0).sum())
        until = np.int32(min(num_idle + group, batch_size) if waiting else batch_size)
        running = _advance(config, params, running, until, settings, before, dtype=dtype)


@functools.partial(jax.jit, static_argnames=("config", "dtype"), donate_argnames="running")
def _refill(
    config: ModelConfig,
    params: dict,
    running: Running,
    places: Int[Array, "group"],
    tokens: Int[Array, "group prompt"],
    lengths: Int[Array, "group"],
    keys: Key[Array, "group"],
    settings: SamplerSettings,
    before: Prompts | None = None,
    *,
    dtype: jnp.dtype,
) -> Running:
    """Read new prompts into some places of the batch and draw their first tokens."""
    new = prefill(config, params, tokens, lengths, before, dtype=dtype)
    width = running.samples.tokens.shape[-1]
    samples, token = draw(
        new.last[:, None],
        unembedding(params, dtype),
        keys[:, None],
        settings,
        no_samples(lengths > 0, 1, width),
    )

    def put(old, fresh):
        return jax.tree.map(lambda a, b: a.at[places].set(b, mode="drop"), old, fresh)

    def put_block(old: Block, fresh: Block) -> Block:
        keys, values = (
            a.at[:, places].set(b, mode="drop")
            for a, b in ((old.keys, fresh.keys), (old.values, fresh.values))
        )
        return Block(keys, values, put(old.positions, fresh.positions))

    context = put_block(running.prompts.context[0], new.context[-1])
    hidden = running.ring.positions.at[places].set(EMPTY, mode="drop")
    return Running(
        Prompts(
            (context,), put(running.prompts.ends, new.ends), put(running.prompts.last, new.last)
        ),
        replace(running.ring, positions=hidden),
        put(running.samples, samples),
        put(running.token, token),
        put(running.keys, keys[:, None]),
        running.step,
    )


@functools.partial(jax.jit, static_argnames=("config", "dtype"), donate_argnames="running")
def _advance(
    config: ModelConfig,
    params: dict,
    running: Running,
    until: Int[Array, ""],
    settings: SamplerSettings,
    before: Prompts | None = None,
    *,
    dtype: jnp.dtype,
) -> Running:
    """Token by token, until at least `until` rows have nothing more to say."""
    matrix = unembedding(params, dtype)
    slots = running.ring.positions.shape[-1]
    shared = () if before is None else before.context

    def go_on(state: Running):
        return (~unfinished(state.samples, settings)).sum() < until

    def one(state: Running) -> Running:
        hidden, ring = append(
            config,
            params,
            state.token,
            state.prompts.ends[:, None] + state.samples.lengths - 1,
            Room(state.ring, state.step % slots),
            (*shared, *state.prompts.context),
            dtype=dtype,
        )
        samples, token = draw(hidden, matrix, state.keys, settings, state.samples)
        return Running(state.prompts, ring, samples, token, state.keys, state.step + 1)

    return jax.lax.while_loop(go_on, one, running)


def _nothing(config, batch: int, prompt: int, width: int, key, dtype) -> Running:
    """A batch all of whose places are free."""
    held = Prompts(
        (empty_block(config, batch, 1, prompt, dtype),),
        jnp.zeros(batch, jnp.int32),
        jnp.zeros((batch, config.hidden_size), dtype),
    )
    return Running(
        held,
        empty_block(config, batch, 1, width, dtype),
        no_samples(jnp.zeros(batch, bool), 1, width),
        jnp.zeros((batch, 1), jnp.int32),
        jnp.broadcast_to(key[:, None], (batch, 1)),
        jnp.int32(0),
    )
