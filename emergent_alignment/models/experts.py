"""A layer's mixture of experts: a router chooses MLPs for each token, and each kernel meets the
tokens that chose it in one grouped matmul (jax.lax.ragged_dot). And the loads of the experts, from
which their balance is told."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emergent_alignment.models.architecture import Architecture
from emergent_alignment.models.held_kernels import Kernel
from emergent_alignment.parallel.sharding import (
    of_all_shards,
    over_rows,
    shard_index,
    sum_to_shards,
)


class Grouped(NamedTuple):
    """One projection of every expert, [experts, in, out], and what there is beside it: an adapter
    (a [experts, in, rank], b [experts, rank, out]), a bias."""

    kernel: Kernel
    adapter: dict | None = None
    bias: Float[Array, "experts width_out"] | None = None


class Router(NamedTuple):
    """What makes the logits of the experts."""

    kernel: Float[Array, "width experts"]
    bias: Float[Array, "experts"] | None = None


def mixture(
    config: Architecture,
    x: Float[Array, "batch tokens width"],
    router: Router,
    kernels: tuple[Grouped, Grouped, Grouped],
    gated: Callable[[Architecture, Array, Array], Array],
    counted: Bool[Array, "batch tokens"] | None = None,
) -> tuple[Float[Array, "batch tokens width"], Float[Array, "batch 2 experts"] | None]:
    """(Σ of each token's chosen experts, by the router's weights; the loads of each row, of the
    tokens that are counted, or None). An expert is an MLP of `kernels` (gate, up, down); `gated` is
    what it makes of the first two (decoder.GATES). On a mesh each shard of rows routes its own
    tokens; where experts are cut, those that hold a part each do their part for all tokens of all
    of them, none of which is dropped."""

    def of_shard(router, kernels, x, counted):
        rows = x.reshape(-1, x.shape[-1])
        likely = likelihoods(rows, router)
        weights, chosen = route(config, likely)
        held = kernels[0].kernel.shape[0]
        if held == config.num_experts:
            out = weighted_sum(config, rows, weights, chosen, kernels, gated)
        else:
            given = (of_all_shards(each, "experts") for each in (rows, weights, chosen))
            rows, weights, by_number = given
            # The first that is held here counts as 0, so that those elsewhere come behind.
            turned = (by_number - held * shard_index("experts")) % config.num_experts
            out = weighted_sum(config, rows, weights, turned, kernels, gated)
            out = sum_to_shards(out, "experts")
        loads = None
        if counted is not None:
            by_row = (*x.shape[:2], -1)
            loads = loads_of(likely.reshape(by_row), chosen.reshape(by_row), counted)
        return out.reshape(x.shape), loads

    return over_rows(of_shard, None, "experts")(router, kernels, x, counted)


def likelihoods(
    rows: Float[Array, "tokens width"], router: Router
) -> Float[Array, "tokens experts"]:
    """The router's softmax, in float32 whatever the rows hold (Fedus et al. 2021, 2101.03961,
    section 2.4: selective precision)."""
    logits = jnp.matmul(rows.astype(jnp.float32), router.kernel.astype(jnp.float32))
    if router.bias is not None:
        logits += router.bias.astype(jnp.float32)
    return jax.nn.softmax(logits)


def route(
    config: Architecture, likely: Float[Array, "tokens experts"]
) -> tuple[Float[Array, "tokens chosen"], Int[Array, "tokens chosen"]]:
    """(weights, experts) of each token's likeliest experts."""
    weights, chosen = jax.lax.top_k(likely, config.experts_per_token)
    if config.normalised_experts:
        weights /= weights.sum(-1, keepdims=True)
    return weights, chosen


def loads_of(
    likely: Float[Array, "batch tokens experts"],
    chosen: Int[Array, "batch tokens chosen"],
    counted: Bool[Array, "batch tokens"],
) -> Float[Array, "batch 2 experts"]:
    """Of the counted tokens of each row: how many chose each expert, and the sum of its
    likelihoods, which alone has a gradient."""
    took = (chosen[..., None] == jnp.arange(likely.shape[-1])) & counted[..., None, None]
    choices = took.sum((1, 2), dtype=jnp.float32)
    return jnp.stack([choices, jnp.where(counted[..., None], likely, 0.0).sum(1)], axis=1)


def load_balance(loads: Float[Array, "layers 2 experts"]) -> Float[Array, ""]:
    """E Σ f p, the mean over the layers: f the share of tokens that chose an expert, p its mean
    likelihood, E the number of experts (Fedus et al. 2021, equation 4, with several experts a
    token). It is experts_per_token where all are loaded alike, up to E where one has everything,
    and 0 where nothing was counted."""
    choices, likely = loads[:, 0], loads[:, 1]
    tokens = jnp.maximum(likely.sum(-1, keepdims=True), 1.0)  # a token's likelihoods sum to one
    shares = choices / tokens, likely / tokens
    return loads.shape[-1] * (shares[0] * shares[1]).sum(-1).mean()


def weighted_sum(
    config: Architecture,
    rows: Float[Array, "tokens width"],
    weights: Float[Array, "tokens chosen"],
    chosen: Int[Array, "tokens chosen"],
    kernels: tuple[Grouped, Grouped, Grouped],
    gated: Callable[[Architecture, Array, Array], Array],
) -> Float[Array, "tokens width"]:
    """Σ of each token's chosen experts, by weights, of the experts 0, 1, … of `kernels` alone:
    those of higher numbers are sorted behind the groups, and count as 0."""
    held = kernels[0].kernel.shape[0]
    order = jnp.argsort(chosen.reshape(-1), stable=True)
    experts = chosen.reshape(-1)[order]
    sizes = jnp.bincount(experts, length=held).astype(jnp.int32)

    def of_groups(x):  # what a grouped matmul has behind its groups need not be a number
        return x if held == config.num_experts else jnp.where(experts[:, None] < held, x, 0.0)

    own = of_groups(rows[order // config.experts_per_token])
    gate, up, down = kernels
    inner = (of_groups(grouped(own, each, sizes, experts)) for each in (gate, up))
    out = of_groups(grouped(gated(config, *inner), down, sizes, experts))[jnp.argsort(order)]
    out = out.reshape(*weights.shape, -1) * weights[..., None].astype(rows.dtype)
    return out.sum(-2)


def grouped(
    rows: Float[Array, "rows width_in"],
    projection: Grouped,
    sizes: Int[Array, "experts"],
    experts: Int[Array, "rows"],
) -> Float[Array, "rows width_out"]:
    """Each row by the projection of its own expert; `rows` are sorted by expert, `sizes` of
    each. Rows behind those are anything."""
    kernel, adapter, bias = projection

    def multiply(rows, kernel):
        return jax.lax.ragged_dot(rows, kernel.matrix(rows.dtype), sizes)

    if (
        kernel.numbers.dtype != rows.dtype
    ):  # keep what is held, and convert again: see decoder.Linear
        multiply = jax.checkpoint(multiply, prevent_cse=False)
    out = multiply(rows, kernel)
    if kernel.form == "int8":
        out = (out.astype(jnp.float32) * kernel.scale[experts]).astype(rows.dtype)
    if bias is not None:
        out += bias.astype(rows.dtype)[experts]
    if adapter is not None:
        a, b = (adapter[name].astype(rows.dtype) for name in ("a", "b"))
        out += jax.lax.ragged_dot(jax.lax.ragged_dot(rows, a, sizes), b, sizes)
    return out
