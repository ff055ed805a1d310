"""Splash attention for a prompt and its branches, on TPU (Pallas; from jax.experimental).

The layout fixes which block of the tokens × tokens square holds anything, so empty blocks are
skipped; the prompts' padding differs from row to row and goes in as segment ids, and where a layer
has a window, prompts are moved up to their branches first, so that it is static, too. Only
`prefix_plan` imports this module, and only where splash attention is asked for.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    Mask,
    MultiHeadMask,
    SegmentIds,
    make_splash_mha_single_device,
)
from jaxtyping import Array, Int

from emergent_alignment.models.attention import AttentionPlan, PrefixLayout
from emergent_alignment.parallel.sharding import spec

LANES = 128  # the kernels' blocks are multiples of it


@dataclass(frozen=True)
class PrefixMask(Mask):
    """What the layout alone says: bool[size, size], computed block by block when asked for.

    A token sees what is not after it in the prompt and in its own branch. The size is the
    layout's, rounded up to whole lanes; the tail counts as more tokens of a branch that
    nobody reads. Every token sees itself: the kernels cannot normalise a row without one.
    With a `window` a token sees no further back than that, of prompts that end where the
    branches begin.
    """

    layout: PrefixLayout
    window: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        tokens = self.layout.prompt + self.layout.branches * self.layout.branch
        size = -(-tokens // LANES) * LANES
        return size, size

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        queries, keys = (np.arange(size)[part] for size, part in zip(self.shape, index))
        prompt, branch = self.layout.prompt, max(self.layout.branch, 1)
        own = (queries[:, None] - prompt) // branch == (keys - prompt) // branch
        sees = (queries[:, None] >= keys) & ((keys < prompt) | own)
        if self.window is None:
            return sees

        def positions(slots):
            return np.where(slots < prompt, slots, prompt + (slots - prompt) % branch)

        return sees & (positions(queries)[:, None] - positions(keys) < self.window)


def block_sizes(size: int) -> BlockSizes:
    """Square blocks, the largest of 512, 256 and 128 that divides `size`."""
    block = next(block for block in (512, 256, LANES) if size % block == 0)
    forward = {"block_q": block, "block_kv": block}
    keys = {"block_q_dkv": block, "block_kv_dkv": block}
    return BlockSizes(**forward, **keys, block_q_dq=block, block_kv_dq=block)


def splash_prefix_plan(
    layout: PrefixLayout, prompt_lengths: Int[Array, "batch"], interpret: bool = False
) -> AttentionPlan:
    """`prefix_plan` with the splash attention kernels, forward and backward.

    query [batch, tokens, heads, head_dim], key and value [batch, tokens, kv_heads, head_dim],
    float32 or bfloat16, any head_dim; the output has the query's shape and dtype, the softmax
    is float32. The kernels read grouped keys and values as they are. Rows of the prompt's
    padding see each other, which no other implementation lets them: their output is finite and
    means nothing. `interpret` runs the kernels without a TPU, slowly.
    """
    longest = layout.prompt + layout.branch

    def attend(window, cap, lengths, query, key, value, sinks):
        mask = PrefixMask(layout, window)
        size = mask.shape[0]
        slots = jnp.arange(size)[None]
        real = (slots >= layout.prompt) | (slots < lengths[:, None])
        if window is not None:
            # Who is within a window of whom is static where all prompts end at the same slot.
            shift = layout.prompt - lengths
            query, key, value = (_moved(layout, x, shift) for x in (query, key, value))
            real = slots >= shift[:, None]
        # Keys are hidden from queries of another segment: the prompt's padding is one, all that
        # is real the other, so every branch sees every true token of the prompt and no padding.
        segments = SegmentIds(q=real.astype(jnp.int32), kv=real.astype(jnp.int32))
        _, tokens, heads, head_dim = query.shape
        kernel = make_splash_mha_single_device(
            MultiHeadMask([mask] * heads),
            block_sizes=block_sizes(size),
            attn_logits_soft_cap=cap,
            interpret=interpret,
        )

        def heads_first(x):
            padded = jnp.pad(x, ((0, 0), (0, size - tokens), (0, 0), (0, 0)))
            return padded.swapaxes(1, 2)

        scaled = query * head_dim**-0.5  # the kernels do not scale
        rows = *map(heads_first, (scaled, key, value)), segments
        output = jax.vmap(kernel, in_axes=(0, 0, 0, 0, None))(*rows, sinks)
        output = output.swapaxes(1, 2)[:, :tokens]
        return output if window is None else _moved(layout, output, -shift)

    def plan(layer, query, key, value, carry, window=None, cap=None, sinks=None):
        if window is not None and window >= longest:
            window = None
        kernel = by_shards(functools.partial(attend, window, cap))
        if sinks is not None:
            sinks = sinks.astype(query.dtype)  # the kernel gives their gradient in that dtype
        return kernel(prompt_lengths, query, key, value, sinks), carry

    return plan


def _moved(layout: PrefixLayout, x: Array, by: Int[Array, "batch"]) -> Array:
    """x [batch, tokens, …] with each prompt's tokens turned `by` slots to the right."""
    slots = (jnp.arange(layout.prompt)[None] - by[:, None]) % layout.prompt
    prompt = jnp.take_along_axis(x[:, : layout.prompt], slots[:, :, None, None], axis=1)
    return jnp.concatenate([prompt, x[:, layout.prompt :]], axis=1)


def by_shards(attend: Callable) -> Callable:
    """attend(prompt_lengths, query, key, value, sinks), done by each device for its own rows and
    heads where a mesh is in force: the compiler cannot cut a kernel itself."""
    if jax.sharding.get_abstract_mesh().empty:
        return attend
    rows, queries, keys = (
        spec(("batch", *axes)) for axes in ((), (None, "heads"), (None, "kv_heads"))
    )
    given = rows, queries, keys, keys, spec(("heads",))
    # check_vma: the kernels' outputs do not say over which mesh axes they vary.
    return jax.shard_map(attend, in_specs=given, out_specs=queries, check_vma=False)
