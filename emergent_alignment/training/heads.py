"""A scalar head on hidden states, trained beside the policy or by itself: rewards and values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.training.state import policy_params


@dataclass(frozen=True)
class Headed:
    """Trainable parameters with a head.

    body    adapters (LoRA) or all parameters; {} where the frozen copy's hidden states are read
    weight  float32[width], and bias float32[]: value = hidden · weight + bias
    """

    body: Any
    weight: Array
    bias: Array


jax.tree_util.register_dataclass(Headed)


def with_head(width: int, *, frozen_body: bool = False) -> Callable[[Any], Headed]:
    """What makes fresh trainable parameters headed ones; the head starts at zero, so that every
    value is 0. With `frozen_body` the head is all that is trained."""

    def grow(trainable: Any) -> Headed:
        body = {} if frozen_body else trainable
        return Headed(body, jnp.zeros(width, jnp.float32), jnp.zeros((), jnp.float32))

    return grow


def body_params(trainable: Headed, frozen: dict, lora: LoraConfig | None) -> dict:
    """The parameters whose hidden states the head reads."""
    return policy_params(trainable.body, frozen, lora) if trainable.body else frozen


def head_values(
    trainable: Headed, hidden: Float[Array, "*tokens width"]
) -> Float[Array, "*tokens"]:
    """float32 values of hidden states."""
    return hidden.astype(jnp.float32) @ trainable.weight + trainable.bias
