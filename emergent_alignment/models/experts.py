"""A layer's mixture of experts: a router chooses MLPs for each token, and each kernel meets the
tokens that chose it in one grouped matmul (jax.lax.ragged_dot)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from emergent_alignment.models.architecture import Architecture
from emergent_alignment.parallel.sharding import over_rows

# A kernel [experts, in, out], its int8 scale [experts, out] or None, and its adapter or None.
Grouped = tuple[Array, Array | None, dict | None]


def mixture(
    config: Architecture,
    x: Float[Array, "batch tokens width"],
    router: Float[Array, "width experts"],
    kernels: tuple[Grouped, Grouped, Grouped],
    activation: Callable[[Array], Array],
) -> Float[Array, "batch tokens width"]:
    """Σ of each token's chosen experts, by the router's weights; an expert is a gated MLP of
    `kernels` (gate, up, down). On a mesh each shard of rows sorts its own tokens."""

    def of_shard(router, kernels, x):
        rows = x.reshape(-1, x.shape[-1])
        weights, chosen = route(config, rows, router)
        order = jnp.argsort(chosen.reshape(-1), stable=True)
        experts = chosen.reshape(-1)[order]
        sizes = jnp.bincount(experts, length=config.num_experts).astype(jnp.int32)
        own = rows[order // config.experts_per_token]
        gate, up, down = kernels
        inner = activation(grouped(own, gate, sizes, experts)) * grouped(own, up, sizes, experts)
        out = grouped(inner, down, sizes, experts)[jnp.argsort(order)]
        out = out.reshape(*chosen.shape, -1) * weights[..., None].astype(x.dtype)
        return out.sum(-2).reshape(x.shape)

    return over_rows(of_shard, num_replicated=2)(router, kernels, x)


def route(
    config: Architecture, rows: Float[Array, "tokens width"], router: Float[Array, "width experts"]
) -> tuple[Float[Array, "tokens chosen"], Int[Array, "tokens chosen"]]:
    """(weights, experts) of each token's likeliest experts, in float32 whatever the rows hold
    (Fedus et al. 2021, 2101.03961, section 2.4: selective precision)."""
    logits = jnp.matmul(rows.astype(jnp.float32), router.astype(jnp.float32))
    weights, chosen = jax.lax.top_k(jax.nn.softmax(logits), config.experts_per_token)
    if config.normalised_experts:
        weights /= weights.sum(-1, keepdims=True)
    return weights, chosen


def grouped(
    rows: Float[Array, "rows width_in"],
    kernel: Grouped,
    sizes: Int[Array, "experts"],
    experts: Int[Array, "rows"],
) -> Float[Array, "rows width_out"]:
    """Each row by the kernel of its own expert; `rows` are sorted by expert, `sizes` of each."""
    matrix, scale, adapter = kernel

    def multiply(rows, matrix):
        return jax.lax.ragged_dot(rows, matrix.astype(rows.dtype), sizes)

    if matrix.dtype != rows.dtype:  # keep what is held, and convert again: see decoder.Linear
        multiply = jax.checkpoint(multiply, prevent_cse=False)
    out = multiply(rows, matrix)
    if scale is not None:
        out = (out.astype(jnp.float32) * scale[experts]).astype(rows.dtype)
    if adapter is not None:
        a, b = (adapter[name].astype(rows.dtype) for name in ("a", "b"))
        out += jax.lax.ragged_dot(jax.lax.ragged_dot(rows, a, sizes), b, sizes)
    return out
