"""Which implementation computes the attention of a prompt with its branches.

All give the same numbers and gradients; the two of any platform are in attention.py.
"""

from typing import Literal

import jax
from jaxtyping import Array, Int

from emergent_alignment.models.attention import (
    AttentionPlan,
    PrefixLayout,
    blocks_prefix_plan,
    dense_prefix_plan,
)

Implementation = Literal["auto", "dense", "blocks", "splash", "cudnn"]


def prefix_plan(
    layout: PrefixLayout,
    prompt_lengths: Int[Array, "batch"],
    implementation: Implementation = "auto",
) -> AttentionPlan:
    """A branch token sees the prompt's true tokens and its own branch; the prompt sees itself.

    `dense` masks a tokens × tokens square and is the reference; `blocks` computes branch ×
    prompt and causal branch × branch under one softmax and makes no such square; `splash` and
    `cudnn` are kernels of TPU and GPU. `auto` is the one for the platform this process runs
    on; a program lowered for another platform must name its own.
    """
    if implementation == "auto":
        own = {"tpu": "splash", "gpu": "cudnn"}
        implementation = own.get(jax.default_backend(), "blocks")
    plans = {
        "dense": dense_prefix_plan,
        "blocks": blocks_prefix_plan,
        "splash": _splash_prefix_plan,
        "cudnn": _cudnn_prefix_plan,
    }
    return plans[implementation](layout, prompt_lengths)


def _splash_prefix_plan(layout: PrefixLayout, prompt_lengths: Array) -> AttentionPlan:
    # Imported here alone: it needs an experimental part of JAX, which other platforms can lack.
    from emergent_alignment.models.attention_tpu import splash_prefix_plan

    return splash_prefix_plan(layout, prompt_lengths)


def _cudnn_prefix_plan(layout: PrefixLayout, prompt_lengths: Array) -> AttentionPlan:
    from emergent_alignment.models.attention_gpu import cudnn_prefix_plan

    return cudnn_prefix_plan(layout, prompt_lengths)
