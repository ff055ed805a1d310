"""What the compiled training step depends on, whatever it minimises."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.models.prefix_attention import Implementation


@dataclass(frozen=True)
class StepSettings:
    """All static: the model, its adapters (None: all parameters are trained), what is computed in,
    what the backward pass computes again, which attention, how many tokens meet the vocabulary at
    once, and into how many microbatches a batch is cut; whether the task gives way to the
    alignment's, and whether each has moments of its own (two_gradients.py)."""

    config: ModelConfig
    lora: LoraConfig | None
    dtype: Any = jnp.float32
    remat: str = "none"
    attention: Implementation = "auto"
    chunk_size: int | None = 256
    accumulation: int = 1
    surgery: bool = False
    own_moments: bool = False
