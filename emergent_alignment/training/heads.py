"""A scalar head on hidden states, trained beside the policy or by itself: rewards and values."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.training.state import policy_params

# "" none, "beside" adapters (or all parameters), "alone": nothing else is trained.
Head = Literal["", "beside", "alone"]


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


@functools.cache
def grower(head: Head, width: int) -> Callable[[Any], Any]:
    """What makes fresh trainable parameters those of a run with such a head; the head starts at
    zero, so that every value is 0."""

    def grow(trainable: Any) -> Any:
        if not head:
            return trainable
        body = {} if head == "alone" else trainable
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
