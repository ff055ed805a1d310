"""The decoder: one Flax NNX module for Llama, Mistral, Qwen2 and Qwen3.

Layers are stacked on a leading axis and scanned, so that compile time is flat in depth.
Attention is not here: each layer asks the plan it is given (models/attention.py).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from emergent_alignment.models.attention import AttentionPlan
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.rope import rope_frequencies
from emergent_alignment.parallel.sharding import constrain

REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def rms_norm(x: Float[Array, "*any width"], weight: Float[Array, "width"], epsilon: float):
    """x / rms(x) · weight, in float32, returned in x's dtype (Zhang & Sennrich 2019)."""
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + epsilon)
    return (wide * weight.astype(jnp.float32)).astype(x.dtype)


def rotate(
    x: Float[Array, "batch tokens heads head_dim"], angles: tuple[Array, Array]
) -> Float[Array, "batch tokens heads head_dim"]:
    """Rotary positions (Su et al. 2021), in the two-halves layout of Hugging Face."""
    cos, sin = (angle[:, :, None, :] for angle in angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def project(
    rows: Float[Array, "rows width_in"], kernel: Array, scale: Float[Array, "width_out"] | None
) -> Float[Array, "rows width_out"]:
    """rows · kernel [in, out], in rows' dtype; of an int8 kernel each output channel is
    multiplied by its scale afterwards (models/frozen.py), which is exact in float32."""
    if scale is None:
        return rows @ kernel.astype(rows.dtype)
    wide = jnp.matmul(rows, kernel.astype(rows.dtype), preferred_element_type=jnp.float32)
    return (wide * scale).astype(rows.dtype)


class Linear(nnx.Module):
    """kernel [in, out] and, where the model has one, bias [out]; scale [out] of int8 kernels."""

    def __init__(self, width_in: int, width_out: int, bias: bool, scaled: bool, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (width_in, width_out)))
        self.bias = nnx.Param(jnp.zeros(width_out)) if bias else nnx.data(None)
        self.scale = nnx.Param(jnp.ones(width_out)) if scaled else nnx.data(None)

    def __call__(self, x: Array, adapter: dict | None) -> Array:
        # Two-dimensional operands: XLA's CPU and TPU backends lay out the weight gradient
        # best when there is a single contracted dimension.
        rows = x.reshape(-1, x.shape[-1])
        kernel = self.kernel[...]
        scale = None if self.scale is None else self.scale[...]
        # The backward pass of the scan would keep every layer's kernel in x's dtype: it is to
        # keep what is held, and convert again.
        lean = kernel.dtype != x.dtype
        multiply = jax.checkpoint(project, prevent_cse=False) if lean else project
        out = multiply(rows, kernel, scale)
        if self.bias is not None:
            out += self.bias[...].astype(x.dtype)
        if adapter is not None:
            out += (rows @ adapter["a"].astype(x.dtype)) @ adapter["b"].astype(x.dtype)
        return out.reshape(*x.shape[:-1], -1)


class Layer(nnx.Module):
    """Pre-norm attention and SwiGLU, with the seven projections that LoRA can adapt; what
    `adapters` hold as "residual" [width] is added to what it puts out."""

    def __init__(self, config: ModelConfig, scaled: bool, rngs: nnx.Rngs):
        width, inner = config.hidden_size, config.intermediate_size
        heads = config.num_heads * config.head_dim
        kv_heads = config.num_kv_heads * config.head_dim
        self.config = config
        self.attention_norm = nnx.Param(jnp.ones(width))
        self.mlp_norm = nnx.Param(jnp.ones(width))
        self.query = Linear(width, heads, config.qkv_bias, scaled, rngs)
        self.key = Linear(width, kv_heads, config.qkv_bias, scaled, rngs)
        self.value = Linear(width, kv_heads, config.qkv_bias, scaled, rngs)
        self.output = Linear(heads, width, config.output_bias, scaled, rngs)
        self.gate = Linear(width, inner, config.mlp_bias, scaled, rngs)
        self.up = Linear(width, inner, config.mlp_bias, scaled, rngs)
        self.down = Linear(inner, width, config.mlp_bias, scaled, rngs)
        if config.qk_norm:
            self.query_norm = nnx.Param(jnp.ones(config.head_dim))
            self.key_norm = nnx.Param(jnp.ones(config.head_dim))

    def __call__(self, x, angles, plan, index, carry, adapters, window):
        config, epsilon = self.config, self.config.rms_norm_eps
        adapter = (adapters or {}).get
        normed = rms_norm(x, self.attention_norm[...], epsilon)

        def heads(name):
            projected = getattr(self, name)(normed, adapter(name))
            return projected.reshape(*x.shape[:2], -1, config.head_dim)

        query, key, value = heads("query"), heads("key"), heads("value")
        if config.qk_norm:
            query = rms_norm(query, self.query_norm[...], epsilon)
            key = rms_norm(key, self.key_norm[...], epsilon)
        query, key = rotate(query, angles), rotate(key, angles)
        query = constrain(query, "batch", None, "heads", None)
        key, value = (constrain(x, "batch", None, "kv_heads", None) for x in (key, value))
        mixed, carry = plan(index, query, key, value, carry, window)
        x = x + self.output(mixed.reshape(*x.shape[:2], -1), adapter("output"))
        normed = rms_norm(x, self.mlp_norm[...], epsilon)
        inner = jax.nn.silu(self.gate(normed, adapter("gate"))) * self.up(normed, adapter("up"))
        x = x + self.down(inner, adapter("down"))
        if (shift := adapter("residual")) is not None:
            x = x + shift.astype(x.dtype)
        return constrain(x, "batch", None, "width"), carry


class Decoder(nnx.Module):
    """Embedding, scanned layers, final norm and (unless tied) an unembedding; `scaled` where
    the kernels are int8."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, *, scaled: bool = False):
        self.config = config
        normal = nnx.initializers.normal(0.02)
        shape = (config.vocab_size, config.hidden_size)
        self.embedding = nnx.Param(normal(rngs.params(), shape))

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stacked(rngs):
            return Layer(config, scaled, rngs)

        self.layers = stacked(rngs)
        self.final_norm = nnx.Param(jnp.ones(config.hidden_size))
        if not config.tie_embeddings:
            self.unembedding = nnx.Param(normal(rngs.params(), shape[::-1]))

    def __call__(
        self,
        tokens: Int[Array, "batch tokens"],
        positions: Int[Array, "batch tokens"],
        plan: AttentionPlan,
        *,
        carry: Any = None,
        adapters: dict | None = None,
        dtype: jnp.dtype = jnp.float32,
        remat: str = "none",
        normed: bool = True,
    ) -> tuple[Float[Array, "batch tokens width"], Any]:
        """Final hidden states (after the last norm, or not `normed`, the residual stream before
        it) and the plan's carry after all layers."""
        config = self.config
        x = constrain(self.embedding[...].astype(dtype)[tokens], "batch", None, "width")
        angles = rope_angles(config, positions)
        graph, stacked = nnx.split(self.layers)
        windows = None
        if config.layer_windows is not None:
            unlimited = jnp.iinfo(jnp.int32).max
            windows = jnp.array([w or unlimited for w in config.layer_windows], jnp.int32)

        def one_layer(state, inputs):
            x, carry = state
            index, weights, adapter, window = inputs
            layer = nnx.merge(graph, weights)
            return layer(x, angles, plan, index, carry, adapter, window), None

        if remat != "none":
            one_layer = jax.checkpoint(one_layer, policy=REMAT_POLICIES[remat])
        inputs = (jnp.arange(config.num_layers), stacked, adapters, windows)
        (x, carry), _ = jax.lax.scan(one_layer, (x, carry), inputs)
        return rms_norm(x, self.final_norm[...], config.rms_norm_eps) if normed else x, carry


def rope_angles(config: ModelConfig, positions: Int[Array, "batch tokens"]):
    """(cos, sin), each float32[batch, tokens, head_dim/2], with the rope scaling's factor."""
    frequencies, factor = rope_frequencies(config)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor
