"""cuDNN's fused attention for a prompt and its branches, on GPU, through jax.nn.

Only `prefix_plan` imports this module. What cuDNN does not take goes to the two blocks.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from emergent_alignment.models.attention import (
    AttentionPlan,
    PrefixLayout,
    blocks_prefix_plan,
    prefix_mask,
)


def cudnn_takes(query: Float[Array, "batch tokens heads head_dim"]) -> bool:
    """Whether cuDNN has a forward and a backward kernel for this, with a mask, on every GPU
    since Ampere: 16 bits a number, an even number of tokens, head_dim a multiple of 8 up to
    128 (jax/_src/cudnn/fused_attention_stablehlo.py, check_is_flash_attention)."""
    _, tokens, _, head_dim = query.shape
    narrow = query.dtype in (jnp.bfloat16, jnp.float16)
    return narrow and tokens % 2 == 0 and head_dim % 8 == 0 and head_dim <= 128


def cudnn_prefix_plan(
    layout: PrefixLayout,
    prompt_lengths: Int[Array, "batch"],
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> AttentionPlan:
    """`prefix_plan` with cuDNN's kernels, forward and backward.

    query [batch, tokens, heads, head_dim], key and value [batch, tokens, kv_heads, head_dim],
    bfloat16 or float16; the output has the query's shape and dtype, the softmax is float32.
    The mask is Bool[batch, 1, tokens, tokens], so sliding windows that differ from layer to
    layer work too. float32, any shape cuDNN has no kernel for, capped logits and sinks are computed
    by blocks.

    `implementation="xla"` asks jax.nn for its own computation of the same call, in any dtype
    and on any platform: what the tests compare.
    """

    def plan(layer, query, key, value, carry, window=None, cap=None, sinks=None):
        plain = cap is None and sinks is None
        if not plain or (implementation == "cudnn" and not cudnn_takes(query)):
            blocks = blocks_prefix_plan(layout, prompt_lengths)
            return blocks(layer, query, key, value, carry, window, cap, sinks)
        mask = prefix_mask(layout, prompt_lengths, window)[:, None]
        output = jax.nn.dot_product_attention(
            query, key, value, mask=mask, implementation=implementation
        )
        return output, carry

    return plan
