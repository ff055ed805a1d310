"""LoRA: explicit adapter trees beside the frozen base (Hu et al. 2021, 2106.09685).

An adapter tree is {"query": {"a": [layers, in, rank], "b": [layers, rank, out]}, …} for any
of the seven projections; the layer adds scale · (x a) b. b starts at zero, so that at step 0
the policy is the base.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from emergent_alignment.settings import Section, setting

PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclass(frozen=True)
class LoraConfig(Section):
    """Adapters beside the frozen weights (rank-stabilised: Kalajdzievski 2023, 2312.03732)."""

    rank: int = setting(16, "The adapters' rank r; 0 trains all parameters.", at_least=0)
    alpha: float = setting(32.0, "Adapters count with the scale α/r.", more_than=0)
    rank_stabilized: bool = setting(False, "The scale is α/√r instead of α/r.")
    targets: tuple[str, ...] = setting(
        PROJECTIONS, "The projections that have adapters.", choices=PROJECTIONS
    )

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


def init_adapters(params: dict, config: LoraConfig, key: jax.Array, dtype=jnp.float32) -> dict:
    """Fresh adapters for `params`: a ~ U(±1/√in) (Kaiming uniform with a=√5), b = 0."""
    adapters = {}
    for name in config.targets:
        layers, width_in, width_out = params["layers"][name]["kernel"].shape
        bound = 1 / math.sqrt(width_in)
        draw = jax.random.fold_in(key, PROJECTIONS.index(name))
        shape = (layers, width_in, config.rank)
        adapters[name] = {
            "a": jax.random.uniform(draw, shape, dtype, -bound, bound),
            "b": jnp.zeros((layers, config.rank, width_out), dtype),
        }
    return adapters


def attach(params: dict, adapters: dict | None, config: LoraConfig | None) -> dict:
    """The policy's parameters: the base with the adapters (scale folded into b) beside it."""
    if adapters is None:
        return params
    scaled = {name: {"a": ab["a"], "b": ab["b"] * config.scale} for name, ab in adapters.items()}
    return params | {"adapters": scaled}


def merge(params: dict, adapters: dict, config: LoraConfig) -> dict:
    """Base parameters with the adapters added into the kernels: kernel + scale · a b."""
    layers = dict(params["layers"])
    for name, ab in adapters.items():
        kernel = layers[name]["kernel"]
        update = jnp.einsum("lir,lro->lio", ab["a"], ab["b"], preferred_element_type=jnp.float32)
        merged = kernel.astype(jnp.float32) + config.scale * update
        layers[name] = layers[name] | {"kernel": merged.astype(kernel.dtype)}
    return params | {"layers": layers}
