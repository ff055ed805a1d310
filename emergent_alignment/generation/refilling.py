"""Continuous batching: rows that have ended make place for the next prompts.

New tokens go round a ring of slots, the same slot for all rows, so that rows of every age are
written at once and in place. A row lives at most as many steps as there are slots, so it never
overwrites itself (of a windowed layer: what it still sees); what an earlier row left in the ring is
hidden by its positions.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from emergent_alignment.data.batches import pad_rows
from emergent_alignment.generation.prefill import Prompts, prefill
from emergent_alignment.generation.sampler import (
    Sampler,
    SamplerSettings,
    Samples,
    draw,
    no_samples,
    unfinished,
)
from emergent_alignment.models.cache import EMPTY, Block, Room, append, empty_block
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import unembedding

# Rows that end before new prompts are read, as a share of the batch: few wait, and what is read
# at once is not too little. benchmarks/refilling.py measures it.
GROUP_SHARE = 8


@dataclass(frozen=True)
class BatchShape:
    """What the programs are compiled for: rows that run at once, tokens of a prompt at most, and
    new tokens of a row at most."""

    rows: int
    prompt: int
    answer: int


@dataclass(frozen=True)
class Newcomers:
    """Prompts that take places of the batch: `places` int32[group], one outside the batch for
    padding; `tokens` int32[group, prompt] and `lengths` int32[group]; `keys` [group]."""

    places: Array
    tokens: Array
    lengths: Array
    keys: Array


jax.tree_util.register_dataclass(Newcomers)


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
    sampler: Sampler,
    shape: BatchShape,
    *,
    before: Prompts | None = None,
    dtype: jnp.dtype = jnp.float32,
) -> Iterator[tuple[list[int], Samples]]:
    """(indices of prompts, their samples [indices, 1] as numpy), as they end.

    Each prompt draws from its own of the sampler's keys [prompts], and its sample depends on
    nothing else in the batch. They go on from one row that was read `before` and stands for all
    of them.
    """
    settings, keys = sampler.settings, sampler.keys
    group = max(shape.rows // GROUP_SHARE, 1)
    running = _nothing(config, shape, keys[:1], dtype)
    owners, waiting = np.full(shape.rows, -1), list(range(len(prompts)))
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
            padding = [shape.rows] * (group - len(chosen))
            rows = [prompts[i] for i in chosen] + [[]] * len(padding)
            new = Newcomers(
                np.array([*places, *padding], np.int32),
                *pad_rows(rows, shape.prompt),
                keys[np.array(chosen + [0] * len(padding))],
            )
            running = _refill(config, params, running, new, settings, before, dtype=dtype)
        if (owners < 0).all():
            return
        num_idle = int((owners < 0).sum())
        until = np.int32(min(num_idle + group, shape.rows) if waiting else shape.rows)
        running = _advance(config, params, running, until, settings, before, dtype=dtype)


@functools.partial(jax.jit, static_argnames=("config", "dtype"), donate_argnames="running")
def _refill(
    config: ModelConfig,
    params: dict,
    running: Running,
    new: Newcomers,
    settings: SamplerSettings,
    before: Prompts | None = None,
    *,
    dtype: jnp.dtype,
) -> Running:
    """Read new prompts into their places of the batch and draw their first tokens."""
    read = prefill(config, params, new.tokens, new.lengths, before, dtype=dtype)
    keys, width = new.keys[:, None], running.samples.tokens.shape[-1]
    samples, token = draw(
        read.last[:, None],
        unembedding(params, dtype),
        Sampler(settings, keys),
        no_samples(new.lengths > 0, 1, width),
        config.logits_cap,
    )

    def put(old, fresh):
        return jax.tree.map(lambda a, b: a.at[new.places].set(b, mode="drop"), old, fresh)

    def put_block(old: Block, fresh: Block) -> Block:
        keys, values = jax.tree.map(
            lambda a, b: a.at[:, new.places].set(b, mode="drop"),
            (old.keys, old.values),
            (fresh.keys, fresh.values),
        )
        return Block(keys, values, put(old.positions, fresh.positions))

    context = put_block(running.prompts.context[0], read.context[-1])
    hidden = jax.tree.map(
        lambda held: held.at[new.places].set(EMPTY, mode="drop"), running.ring.positions
    )
    return Running(
        Prompts(
            (context,), put(running.prompts.ends, read.ends), put(running.prompts.last, read.last)
        ),
        replace(running.ring, positions=hidden),
        put(running.samples, samples),
        put(running.token, token),
        put(running.keys, keys),
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
    shared = () if before is None else before.context

    def go_on(state: Running):
        return (~unfinished(state.samples, settings)).sum() < until

    def one(state: Running) -> Running:
        hidden, ring = append(
            config,
            params,
            state.token,
            state.prompts.ends[:, None] + state.samples.lengths - 1,
            Room(state.ring, state.step),
            (*shared, *state.prompts.context),
            dtype=dtype,
        )
        sampler = Sampler(settings, state.keys)
        samples, token = draw(hidden, matrix, sampler, state.samples, config.logits_cap)
        return Running(state.prompts, ring, samples, token, state.keys, state.step + 1)

    return jax.lax.while_loop(go_on, one, running)


def _nothing(config, shape: BatchShape, key, dtype) -> Running:
    """A batch all of whose places are free."""
    rows = shape.rows
    held = Prompts(
        (empty_block(config, rows, 1, shape.prompt, dtype),),
        jnp.zeros(rows, jnp.int32),
        jnp.zeros((rows, config.hidden_size), dtype),
    )
    return Running(
        held,
        empty_block(config, rows, 1, shape.answer, dtype),
        no_samples(jnp.zeros(rows, bool), 1, shape.answer),
        jnp.zeros((rows, 1), jnp.int32),
        jnp.broadcast_to(key[:, None], (rows, 1)),
        jnp.int32(0),
    )
