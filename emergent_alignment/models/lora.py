"""LoRA: explicit adapter trees beside the frozen base (Hu et al. 2021, 2106.09685).

An adapter tree is {"query": {"a": [layers, in, rank], "b": [layers, rank, out]}, …} for any
of the projections, with an axis of experts behind that of layers for theirs; the layer adds
scale · (x a) b. One of the two starts at zero, so that at step 0 the policy is the base.
"""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from emergent_alignment.models.held_kernels import Kernel
from emergent_alignment.models.names import EXPERT_PROJECTIONS, PROJECTION_NAMES
from emergent_alignment.settings import Section, setting

PROJECTIONS = tuple(name for name in PROJECTION_NAMES if name not in EXPERT_PROJECTIONS)
_ADAPTABLE = (*PROJECTIONS, *EXPERT_PROJECTIONS)


@dataclass(frozen=True)
class LoraConfig(Section):
    """Adapters beside the frozen weights (rank-stabilised: Kalajdzievski 2023, 2312.03732)."""

    rank: int = setting(16, "The adapters' rank r; 0 trains all parameters.", at_least=0)
    alpha: float = setting(32.0, "α: what adapters add is scaled by α/r.", more_than=0)
    rank_stabilized: bool = setting(False, "The scale is α/√r instead of α/r.")
    targets: tuple[str, ...] = setting(
        PROJECTIONS,
        "The projections that have adapters, where the model has them; the last three are those "
        "of experts.",
        choices=_ADAPTABLE,
    )
    init: Literal["b_zero", "a_zero"] = setting(
        "b_zero",
        "Which matrix of an adapter (x A) B starts at zero, the other at random: b_zero is usual; "
        "with a_zero preference losses learn at lower learning rates, too.",
    )

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


def init_adapters(params: dict, config: LoraConfig, key: jax.Array, dtype=jnp.float32) -> dict:
    """Fresh adapters for `params`: one matrix is drawn from U(±1/√(its inputs)) (Kaiming uniform
    with a=√5), the other is zero (config.init), so that the policy starts as the base."""
    adapters = {}
    for name in config.targets:
        if name not in params["layers"]:
            continue
        *each, width_in, width_out = Kernel.of(params["layers"][name]).shape
        draw = jax.random.fold_in(key, _ADAPTABLE.index(name))
        shapes = {"a": (*each, width_in, config.rank), "b": (*each, config.rank, width_out)}
        zero = config.init[0]
        adapters[name] = {
            matrix: jnp.zeros(shape, dtype) if matrix == zero else _kaiming(draw, shape, dtype)
            for matrix, shape in shapes.items()
        }
    return adapters


def _kaiming(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    bound = 1 / math.sqrt(shape[-2])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def attach(params: dict, adapters: dict | None, config: LoraConfig | None) -> dict:
    """The policy's parameters: the base with the adapters (scale folded into b) beside it."""
    if adapters is None:
        return params
    assert config is not None  # adapters come with their settings
    scaled = {name: {"a": ab["a"], "b": ab["b"] * config.scale} for name, ab in adapters.items()}
    return params | {"adapters": scaled}


def merge(params: dict, adapters: dict, config: LoraConfig) -> dict:
    """Base parameters with the adapters added into the kernels: kernel + scale · a b."""
    layers = dict(params["layers"])
    for name, ab in adapters.items():
        kernel = layers[name]["kernel"]
        update = jnp.einsum(
            "...ir,...ro->...io", ab["a"], ab["b"], preferred_element_type=jnp.float32
        )
        merged = kernel.astype(jnp.float32) + config.scale * update
        layers[name] = layers[name] | {"kernel": merged.astype(kernel.dtype)}
    return params | {"layers": layers}
