"""Blocks of keys and values, and reading more tokens on top of them.

What has been read once is never read again: a prompt is one block, each of its branches
another, and new tokens (a question, the next sampled token) see any number of blocks. Of a layer
with a window a block holds what tokens behind its end can see, and no more.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from emergent_alignment.models.attention import attend, sees
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import forward
from emergent_alignment.parallel.sharding import constrain, placed_rows

EMPTY = jnp.iinfo(jnp.int32).max
KEY_VALUE_AXES = ("layers", "batch", None, None, "kv_heads", None)  # of keys and values


@dataclass(frozen=True)
class Block:
    """Keys and values of some tokens of each row, apart for each of the model's windows
    (Architecture.windows, in its order).

    keys, values  each [its layers, batch, branches, slots, kv_heads, head_dim]; a block of one
                  branch is seen by all branches that are read on top of it, and a block of one
                  row by all rows
    positions     each int32[batch, branches, slots]; `EMPTY` where a slot holds no token: no query
                  sees it
    """

    keys: tuple[Array, ...]
    values: tuple[Array, ...]
    positions: tuple[Array, ...]


jax.tree_util.register_dataclass(Block)


@dataclass(frozen=True)
class Room:
    """Where new tokens are put: into `block`, whose slots go round, from slot `at` on. Queries look
    at its first `filled` slots alone, at all of them where it is None."""

    block: Block
    at: int | Int[Array, ""] = 0
    filled: int | None = None


@dataclass(frozen=True)
class _Own:
    """How the tokens of this pass meet their block: `positions` of the keys that queries see, for
    each window; `put(stacked, layer, new)` are a window's keys or values with the new ones in
    them, and those that queries see."""

    positions: tuple[Array, ...]
    put: Callable[[Array, Int[Array, ""], Array], tuple[Array, Array]]


def empty_block(
    config: ModelConfig,
    batch: int,
    branches: int,
    slots: int,
    dtype: jnp.dtype,
    *,
    whole: bool = False,
) -> Block:
    """A block whose slots nobody can see yet: so many, or as many as the window where that is
    shorter and the block is not to be `whole`."""
    shapes = [
        (len(layers), batch, branches, slots if whole or window is None else min(window, slots))
        for window, layers in config.windows.items()
    ]
    heads = config.num_kv_heads, config.head_dim
    keys, values = (tuple(jnp.zeros((*shape, *heads), dtype) for shape in shapes) for _ in range(2))
    positions = tuple(jnp.full(shape[1:], EMPTY, jnp.int32) for shape in shapes)
    return placed_block(Block(keys, values, positions))


def placed_block(block: Block) -> Block:
    """The block, placed as the axes in force say."""
    keys, values = jax.tree.map(lambda x: constrain(x, *KEY_VALUE_AXES), (block.keys, block.values))
    return Block(keys, values, tuple(constrain(x, "batch", None, None) for x in block.positions))


def chosen_rows(block: Block, rows: Int[Array, "picks"]) -> Block:
    """These rows of a block, in their order."""
    keys, values = jax.tree.map(lambda x: x[:, rows], (block.keys, block.values))
    return Block(keys, values, jax.tree.map(lambda x: x[rows], block.positions))


def chosen_branches(block: Block, branches: Int[Array, "picks"]) -> Block:
    """These branches of a block, in their order."""
    keys, values = jax.tree.map(lambda x: x[:, :, branches], (block.keys, block.values))
    return Block(keys, values, jax.tree.map(lambda x: x[:, branches], block.positions))


def cut_block(block: Block, ends: Int[Array, "batch"]) -> Block:
    """A whole block without what stands at position `ends` or behind it."""

    def kept(positions):
        return jnp.where(positions < ends[:, None, None], positions, EMPTY)

    return replace(block, positions=jax.tree.map(kept, block.positions))


def read(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch branches tokens"],
    lengths: Int[Array, "batch branches"],
    starts: Int[Array, "batch branches"],
    context: tuple[Block, ...] = (),
    *,
    whole: bool = False,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[Float[Array, "batch branches tokens width"], Block]:
    """Final hidden states of right-padded tokens that follow `context`, and their own block, which
    is `whole` where its end is to be cut.

    Each branch begins at position `starts` and sees the context and itself.
    """
    offsets = jnp.arange(tokens.shape[-1], dtype=jnp.int32)
    positions = starts[..., None].astype(jnp.int32) + offsets
    held = jnp.where(offsets < lengths[..., None], positions, EMPTY)
    block = empty_block(config, *tokens.shape, dtype, whole=whole)
    kept = tuple(_last(held, lengths, x.shape[-1]) for x in block.positions)

    def put(stacked, layer, new):
        last = _last(new, lengths, stacked.shape[3])
        return jax.lax.dynamic_update_slice(stacked, last[None], (layer, 0, 0, 0, 0, 0)), new

    own = _Own((held,) * len(kept), put)
    block = replace(block, positions=kept)
    return _extended(config, params, tokens, positions, block, own, context, dtype)


def append(
    config: ModelConfig,
    params: dict,
    token: Int[Array, "batch branches"],
    position: Int[Array, "batch branches"],
    room: Room,
    context: tuple[Block, ...],
    *,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[Float[Array, "batch branches width"], Block]:
    """The final hidden state of one more token a branch, and the block with it."""
    positions = placed_rows(position[..., None].astype(jnp.int32))

    def with_position(held):
        slot = room.at % held.shape[-1]
        return placed_rows(jax.lax.dynamic_update_slice(held, positions, (0, 0, slot)))

    def put(stacked, layer, new):
        slot = room.at % stacked.shape[3]
        stacked = jax.lax.dynamic_update_slice(stacked, new[None], (layer, 0, 0, slot, 0, 0))
        return stacked, _of_layer(stacked[:, :, :, : room.filled], layer)

    held = jax.tree.map(with_position, room.block.positions)
    own = _Own(tuple(x[..., : room.filled] for x in held), put)
    block = replace(room.block, positions=held)
    tokens = token[..., None]
    hidden, block = _extended(config, params, tokens, positions, block, own, context, dtype)
    return hidden[:, :, 0], block


def _last(x: Array, lengths: Int[Array, "batch branches"], slots: int) -> Array:
    """So many of the tokens [batch, branches, tokens, …]: those up to a branch's length, and what
    is behind them where it is shorter."""
    if slots == x.shape[2]:
        return x
    at = jnp.maximum(lengths - slots, 0)[..., None] + jnp.arange(slots)
    return jnp.take_along_axis(x, at.reshape(*at.shape, *[1] * (x.ndim - 3)), axis=2)


def _of_layer(stacked: Array, layer: Int[Array, ""]) -> Array:
    """A layer's keys or values, without their axis of branches where all share one."""
    own = jax.lax.dynamic_index_in_dim(stacked, layer, keepdims=False)
    return own[:, 0] if own.shape[1] == 1 else own


def _extended(config, params, tokens, positions, block: Block, own: _Own, context, dtype):
    """Hidden states of the tokens, each of which sees the context and its own branch wherever the
    position is not after its own, and the block with their keys and values."""
    batch, branches, length = tokens.shape
    windows = list(config.windows)
    places = _places(config)

    def plan(layer, query, key, value, carry, window=None, cap=None, sinks=None):
        at, layer = windows.index(window), places[layer]

        def parts(x):
            return x.reshape(batch, branches, length, *x.shape[2:])

        def put(stacked, new):
            held, seen = own.put(stacked[at], layer, parts(new).astype(dtype))
            return (*stacked[:at], held, *stacked[at + 1 :]), seen

        keys, key = put(carry[0], key)
        values, value = put(carry[1], value)
        seen = [
            (_of_layer(x.keys[at], layer), _of_layer(x.values[at], layer), x.positions[at])
            for x in context
        ]
        seen.append((key, value, own.positions[at]))
        sources = [(k, v, sees(positions, held, window)) for k, v, held in seen]
        mixed = attend(parts(query), sources, cap, sinks)
        return mixed.reshape(query.shape), (keys, values)

    hidden, (keys, values) = forward(
        config,
        params,
        tokens.reshape(batch, -1),
        positions.reshape(batch, -1),
        plan,
        carry=(block.keys, block.values),
        dtype=dtype,
    )
    hidden = hidden.reshape(batch, branches, length, -1)
    return hidden, replace(block, keys=keys, values=values)


def _places(config: ModelConfig) -> Int[Array, "layers"]:
    """Where each layer's keys and values lie among those of its window."""
    places = {layer: at for own in config.windows.values() for at, layer in enumerate(own)}
    return jnp.array([places[layer] for layer in range(config.num_layers)])
