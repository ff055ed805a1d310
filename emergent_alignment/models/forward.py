"""The model as pure functions of its parameters: tokens to hidden states, hidden states through
the vocabulary. Nothing here reads or writes a file.

The NNX module is split once, here; from then on parameters are plain pytrees.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from emergent_alignment.losses import token_kl, token_log_probs, token_log_probs_and_entropy
from emergent_alignment.models.attention import AttentionPlan
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.decoder import Decoder, Watch
from emergent_alignment.models.held_kernels import held_as
from emergent_alignment.parallel.sharding import over_rows

# Parts of a tree of parameters that are none of the base's: what a policy adds (lora.attach), and
# what a policy in training is steered by (training/state.py).
BESIDE_THE_BASE = ("adapters", "steering")


@functools.lru_cache(maxsize=32)
def _abstract(config: ModelConfig, form: str):
    module = nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0), form=form))
    return nnx.split(module)


def forward(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch tokens"],
    positions: Int[Array, "batch tokens"],
    plan: AttentionPlan,
    *,
    carry: Any = None,
    dtype: jnp.dtype = jnp.float32,
    remat: str = "none",
) -> tuple[Float[Array, "batch tokens width"], Any]:
    """The decoder as a pure function of its parameters: (final hidden states, plan's carry)."""
    adapters = params.get("adapters")
    hidden, carry, _ = _decoder(config, params)(
        tokens, positions, plan, carry=carry, adapters=adapters, dtype=dtype, remat=remat
    )
    return hidden, carry


def watched_forward(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch tokens"],
    positions: Int[Array, "batch tokens"],
    plan: AttentionPlan,
    counted: Bool[Array, "batch tokens"],
    *,
    dtype: jnp.dtype = jnp.float32,
    remat: str = "none",
) -> tuple[Float[Array, "batch tokens width"], Float[Array, "layers 2 experts"] | None]:
    """`forward` without a carry, and what each layer's router was asked for: of the tokens that are
    counted, how many chose each expert, and the sum of its likelihoods (models/experts.py). None of
    a model without experts."""
    hidden, _, watched = _decoder(config, params)(
        tokens,
        positions,
        plan,
        adapters=params.get("adapters"),
        dtype=dtype,
        remat=remat,
        watch=Watch(counted=counted),
    )
    return hidden, watched.loads


def activations(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch tokens"],
    positions: Int[Array, "batch tokens"],
    plan: AttentionPlan,
    *,
    capture: tuple[int, ...] = (),
    add: Float[Array, "layers width"] | None = None,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[Float[Array, "batch tokens width"], Float[Array, "captured batch tokens width"] | None]:
    """`forward` with its residual stream open: (final hidden states, the stream after each number
    of layers in `capture`, before any norm; None where nothing is captured).

    `capture` is static, 0 are the embeddings; `add` is added to the stream after each layer, of all
    tokens, and differentiable. Both are of the policy where `params` have adapters.
    """
    adapters = params.get("adapters")
    if add is not None:
        adapters = (adapters or {}) | {"residual": add}
    hidden, _, watched = _decoder(config, params)(
        tokens, positions, plan, adapters=adapters, dtype=dtype, watch=Watch(capture)
    )
    return hidden, watched.captured


def residual_after(
    layer: int,
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch tokens"],
    positions: Int[Array, "batch tokens"],
    plan: AttentionPlan,
    *,
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "batch tokens width"]:
    """The residual stream of the base parameters after the first `layer` layers, before any norm;
    no other layer is computed."""
    layers = jax.tree.map(lambda leaf: leaf[:layer], params["layers"])
    base = {name: tree for name, tree in params.items() if name not in BESIDE_THE_BASE}
    cut = config.first_layers(layer), base | {"layers": layers}
    return activations(*cut, tokens, positions, plan, capture=(layer,), dtype=dtype)[1][0]


def _decoder(config: ModelConfig, params: dict) -> Decoder:
    """The module with these base parameters; what stands beside them is left out."""
    graph, abstract = _abstract(config, held_as(params))
    base = {name: tree for name, tree in params.items() if name not in BESIDE_THE_BASE}
    state = jax.tree.map(lambda leaf: leaf, abstract)
    nnx.replace_by_pure_dict(state, base)
    return nnx.merge(graph, state)


def sharded_token_log_probs(
    params: dict,
    hidden: Float[Array, "batch tokens width"],
    targets: Int[Array, "batch tokens"],
    *,
    chunk_size: int | None,
    cap: float | None,
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "batch tokens"]:
    """losses.token_log_probs of the model's vocabulary. On a mesh each shard of rows takes its
    own tokens through it, `chunk_size` at a time, and the gradients of the unembedding are
    added up once, not for each chunk. `cap` is the config's logits_cap."""
    return _over_vocabulary(token_log_probs, params, hidden, targets, chunk_size, cap, dtype)


def sharded_token_log_probs_and_entropy(
    params: dict,
    hidden: Float[Array, "batch tokens width"],
    targets: Int[Array, "batch tokens"],
    *,
    chunk_size: int | None,
    cap: float | None,
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "batch tokens 2"]:
    """losses.token_log_probs_and_entropy, shard by shard likewise."""
    return _over_vocabulary(
        token_log_probs_and_entropy, params, hidden, targets, chunk_size, cap, dtype
    )


def _over_vocabulary(measure, params, hidden, targets, chunk_size, cap, dtype) -> Array:
    def of_shard(matrix, hidden, targets):
        return measure(hidden, matrix, targets, chunk_size=chunk_size, cap=cap)

    return over_rows(of_shard, None)(unembedding(params, dtype), hidden, targets)


def sharded_token_kl(
    params: dict,
    hidden: Float[Array, "batch tokens width"],
    frozen: dict,
    frozen_hidden: Float[Array, "batch tokens width"],
    *,
    chunk_size: int | None,
    cap: float | None,
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "batch tokens"]:
    """losses.token_kl of a policy from its frozen copy, shard by shard likewise."""

    def of_shard(matrix, frozen_matrix, hidden, frozen_hidden):
        return token_kl(
            hidden, matrix, frozen_hidden, frozen_matrix, chunk_size=chunk_size, cap=cap
        )

    matrices = unembedding(params, dtype), unembedding(frozen, dtype)
    return over_rows(of_shard, None, None)(*matrices, hidden, frozen_hidden)


def unembedding(params: dict, dtype: jnp.dtype = jnp.float32) -> Float[Array, "width vocabulary"]:
    """The matrix from hidden states to logits: the tied embedding's transpose, or its own."""
    matrix = params["unembedding"] if "unembedding" in params else params["embedding"].T
    return matrix.astype(dtype)
