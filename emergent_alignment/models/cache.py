"""Blocks of keys and values, and reading more tokens on top of them.

What has been read once is never read again: a prompt is one block, each of its branches
another, and new tokens (a question, the next sampled token) see any number of blocks.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from emergent_alignment.models.attention import AttentionPlan, attend, sees
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import forward
from emergent_alignment.parallel.sharding import constrain, placed_rows

EMPTY = jnp.iinfo(jnp.int32).max
KEY_VALUE_AXES = ("layers", "batch", None, None, "kv_heads", None)  # of keys and values


@dataclass(frozen=True)
class Block:
    """Keys and values of some tokens of each row.

    keys, values  [layers, batch, branches, slots, kv_heads, head_dim]; a block of one branch
                  is seen by all branches that are read on top of it, and a block of one row
                  by all rows
    positions     int32[batch, branches, slots]; `EMPTY` where a slot holds no token: no query
                  sees it
    """

    keys: Array
    values: Array
    positions: Array


jax.tree_util.register_dataclass(Block)


@dataclass(frozen=True)
class Room:
    """Where new tokens are put: into `block`, from slot `at` on. Queries look at its first
    `filled` slots alone, at all of them where it is None."""

    block: Block
    at: int | Int[Array, ""] = 0
    filled: int | None = None


def empty_block(
    config: ModelConfig, batch: int, branches: int, slots: int, dtype: jnp.dtype
) -> Block:
    """A block whose slots nobody can see yet."""
    shape = (config.num_layers, batch, branches, slots, config.num_kv_heads, config.head_dim)
    positions = jnp.full((batch, branches, slots), EMPTY, jnp.int32)
    return placed_block(Block(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), positions))


def placed_block(block: Block) -> Block:
    """The block, placed as the axes in force say."""
    keys, values = (constrain(x, *KEY_VALUE_AXES) for x in (block.keys, block.values))
    return Block(keys, values, constrain(block.positions, "batch", None, None))


def read(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch branches tokens"],
    lengths: Int[Array, "batch branches"],
    starts: Int[Array, "batch branches"],
    context: tuple[Block, ...] = (),
    *,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[Float[Array, "batch branches tokens width"], Block]:
    """Final hidden states of right-padded tokens that follow `context`, and their own block.

    Each branch begins at position `starts` and sees the context and itself.
    """
    offsets = jnp.arange(tokens.shape[-1], dtype=jnp.int32)
    positions = starts[..., None].astype(jnp.int32) + offsets
    held = jnp.where(offsets < lengths[..., None], positions, EMPTY)
    block = replace(empty_block(config, *tokens.shape, dtype), positions=held)
    return _extend(config, params, tokens, positions, Room(block), context, dtype)


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
    held = jax.lax.dynamic_update_slice(room.block.positions, positions, (0, 0, room.at))
    held = placed_rows(held)
    room = replace(room, block=replace(room.block, positions=held))
    hidden, block = _extend(config, params, token[..., None], positions, room, context, dtype)
    return hidden[:, :, 0], block


def _extend(config, params, tokens, positions, room: Room, context, dtype):
    block = room.block
    batch, branches, length = tokens.shape
    hidden, (keys, values) = forward(
        config,
        params,
        tokens.reshape(batch, -1),
        positions.reshape(batch, -1),
        _block_plan(positions, room, context),
        carry=(block.keys, block.values),
        dtype=dtype,
    )
    hidden = hidden.reshape(batch, branches, length, -1)
    return hidden, replace(block, keys=keys, values=values)


def _block_plan(positions, room: Room, context) -> AttentionPlan:
    """New keys and values go into the carry at `room.at`, in place; queries see the context and
    the first `room.filled` slots of the carry, wherever the position is not after theirs."""
    batch, branches, length = positions.shape
    filled = room.block.positions.shape[-1] if room.filled is None else room.filled

    def of_layer(stacked, layer):
        own = jax.lax.dynamic_index_in_dim(stacked, layer, keepdims=False)
        return own[:, 0] if own.shape[1] == 1 else own

    def plan(layer, query, key, value, carry, window=None, cap=None, sinks=None):
        def parts(x):
            return x.reshape(batch, branches, length, *x.shape[2:])

        def stored(stacked, new):
            new = parts(new)[None].astype(stacked.dtype)
            return jax.lax.dynamic_update_slice(stacked, new, (layer, 0, 0, room.at, 0, 0))

        keys, values = stored(carry[0], key), stored(carry[1], value)
        seen = [(x.keys, x.values, x.positions) for x in context]
        held = room.block.positions[..., :filled]
        seen.append((keys[:, :, :, :filled], values[:, :, :, :filled], held))
        sources = [
            (of_layer(k, layer), of_layer(v, layer), sees(positions, at, window))
            for k, v, at in seen
        ]
        return attend(parts(query), sources, cap, sinks).reshape(query.shape), (keys, values)

    return plan
