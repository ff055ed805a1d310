"""The decoder: one Flax NNX module for every family, built from its table (models/families).

Layers are stacked on a leading axis and scanned by the period of their kinds, so that compile time
is flat in depth and what sets a kind apart (its window, its rope) is static.
Attention is not here: each layer asks the plan it is given (models/attention.py).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from emergent_alignment.models.architecture import Architecture, LayerKind, Stretch
from emergent_alignment.models.attention import AttentionPlan
from emergent_alignment.models.experts import Grouped, Router, mixture
from emergent_alignment.models.families import family_of
from emergent_alignment.models.family import Parameter
from emergent_alignment.models.held_kernels import SCALES, Kernel, scale_shape
from emergent_alignment.models.names import tensor_names
from emergent_alignment.models.rope import rope_frequencies
from emergent_alignment.models.rope_config import Rope
from emergent_alignment.parallel.sharding import constrain

REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def _silu(config: Architecture, gate: Array, up: Array) -> Array:
    return jax.nn.silu(gate) * up


def _gelu_tanh(config: Architecture, gate: Array, up: Array) -> Array:
    return jax.nn.gelu(gate, approximate=True) * up


def _clamped_swiglu(config: Architecture, gate: Array, up: Array) -> Array:
    """g σ(1.702 g) (u + 1), with g at most `config.gate_limit` and u within it on both sides
    (gpt-oss, 2508.10925, section 2.2)."""
    gate = jnp.minimum(gate, config.gate_limit)
    up = jnp.clip(up, -config.gate_limit, config.gate_limit)
    return gate * jax.nn.sigmoid(1.702 * gate) * (up + 1)


# What an MLP, or an expert, makes of its gate and of what that gates.
GATES = {"silu": _silu, "gelu_tanh": _gelu_tanh, "clamped_swiglu": _clamped_swiglu}


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


def project(rows: Float[Array, "rows width_in"], kernel: Kernel) -> Float[Array, "rows width_out"]:
    """rows · kernel [in, out], in rows' dtype; of an int8 kernel each output channel is
    multiplied by its scale afterwards, which is exact in float32."""
    matrix = kernel.matrix(rows.dtype)
    if kernel.form != "int8":
        return rows @ matrix
    wide = jnp.matmul(rows, matrix, preferred_element_type=jnp.float32)
    return (wide * kernel.scale).astype(rows.dtype)


class Projection(nnx.Module):
    """kernel [*, in, out] and, where the model has one, bias [*, out]; the scales of a kernel that
    is held in a form of held_kernels.py, which replaces what is drawn here."""

    def __init__(self, shape: tuple[int, ...], bias: bool, form: str, rngs: nnx.Rngs):
        *before, _, width_out = shape
        self.form = form
        self.kernel = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros((*before, width_out))) if bias else nnx.data(None)
        if form:
            setattr(self, SCALES[form], nnx.Param(jnp.ones(scale_shape(form, shape))))

    def held(self) -> Kernel:
        """The kernel to compute with."""
        scale = getattr(self, SCALES[self.form])[...] if self.form else None
        return Kernel(self.kernel[...], scale, self.form)


class Linear(Projection):
    """One kernel, which meets every row."""

    def __call__(self, x: Array, adapter: dict | None) -> Array:
        # Two-dimensional operands: XLA's CPU and TPU backends lay out the weight gradient
        # best when there is a single contracted dimension.
        rows = x.reshape(-1, x.shape[-1])
        kernel = self.held()
        # The backward pass of the scan would keep every layer's kernel in x's dtype: it is to
        # keep what is held, and convert again.
        lean = kernel.numbers.dtype != x.dtype
        multiply = jax.checkpoint(project, prevent_cse=False) if lean else project
        out = multiply(rows, kernel)
        if self.bias is not None:
            out += self.bias[...].astype(x.dtype)
        if adapter is not None:
            out += (rows @ adapter["a"].astype(x.dtype)) @ adapter["b"].astype(x.dtype)
        return out.reshape(*x.shape[:-1], -1)


class Experts(Projection):
    """A kernel of each expert, which meets the rows that chose it."""

    def beside(self, adapter: dict | None) -> Grouped:
        """What models/experts.py computes with."""
        return Grouped(self.held(), adapter, None if self.bias is None else self.bias[...])


class Shared(NamedTuple):
    """What all layers of a pass go by: (cos, sin) of each rope, how they attend, and the tokens
    whose routing is watched (None: of none)."""

    angles: dict
    plan: AttentionPlan
    counted: Bool[Array, "batch tokens"] | None


class Watch(NamedTuple):
    """What a pass is to tell beside its hidden states: the residual stream after each of these
    numbers of layers (0: the embeddings), and the loads of the experts by these tokens."""

    capture: tuple[int, ...] = ()
    counted: Bool[Array, "batch tokens"] | None = None


NOTHING_WATCHED = Watch()


class Watched(NamedTuple):
    """What a pass tells beside its hidden states, None where nothing of the kind was asked for: the
    residual stream after some layers, and the loads of each layer's experts."""

    captured: Float[Array, "captured batch tokens width"] | None
    loads: Float[Array, "layers 2 experts"] | None


class Layer(nnx.Module):
    """Attention and a gated MLP, with the norms and projections of the family's table; what
    `adapters` hold as "residual" [width] is added to what it puts out."""

    def __init__(self, config: Architecture, form: str, rngs: nnx.Rngs):
        self.config = config
        rows = [row for row in tensor_names(config).values() if row.stacked]
        biased = {row.path[1] for row in rows if row.path[-1] == "bias"}
        for row in rows:
            name, sizes = row.path[1], row.shape(config)[1:]
            if row.path[-1] == "kernel":
                kind = Experts if row.of_experts else Linear
                held = form if row.quantisable else ""
                setattr(self, name, kind(sizes, name in biased, held, rngs))
            elif len(row.path) == 2:
                setattr(self, name, nnx.Param(_fresh_vector(config, row)))

    def normed(self, name: str, x: Array) -> Array:
        """x through the norm of this name; x itself where the family has none there."""
        weight = getattr(self, name, None)
        if weight is None:
            return x
        return rms_norm(x, _norm_weight(self.config, weight[...]), self.config.rms_norm_eps)

    def __call__(self, x, shared: Shared, index, carry, adapters, kind: LayerKind):
        adapter = (adapters or {}).get
        normed = self.normed("attention_norm", x)
        mixed, carry = self.attention(normed, shared, index, carry, adapter, kind)
        x = x + self.added("attention_output_norm", mixed)
        out, loads = self.mlp(self.normed("mlp_norm", x), adapter, shared.counted)
        x = x + self.added("mlp_output_norm", out)
        if (shift := adapter("residual")) is not None:
            x = x + shift.astype(x.dtype)
        return constrain(x, "batch", None, "width"), carry, loads

    def attention(self, normed, shared: Shared, index, carry, adapter, kind: LayerKind):
        """What the heads mix, and the plan's carry."""
        config = self.config

        def heads(name):
            x = getattr(self, name)(normed, adapter(name))
            return x.reshape(*normed.shape[:2], -1, config.head_dim)

        query, key, value = heads("query"), heads("key"), heads("value")
        if config.qk_norm:
            query, key = self.normed_heads("query_norm", query), self.normed_heads("key_norm", key)
        if config.query_scale is not None:
            own = config.head_dim**-0.5  # what plans scale by
            query = query * jnp.asarray(config.query_scale / own, query.dtype)
        if kind.rope is not None:
            of_queries, of_keys = shared.angles[kind.rope]
            query, key = rotate(query, of_queries), rotate(key, of_keys)
        query = constrain(query, "batch", None, "heads", None)
        key, value = (constrain(x, "batch", None, "kv_heads", None) for x in (key, value))
        plan = shared.plan
        if (sinks := getattr(self, "sinks", None)) is not None:
            plan = functools.partial(plan, sinks=sinks[...])
        mixed, carry = plan(index, query, key, value, carry, kind.window)
        return self.output(mixed.reshape(*normed.shape[:2], -1), adapter("output")), carry

    def mlp(self, normed: Array, adapter, counted: Array | None) -> tuple[Array, Array | None]:
        """The gated MLP, or the mixture of them that each token's router chooses; and the loads of
        the experts, row by row, where tokens are counted."""
        gated = GATES[family_of(self.config).activation]
        if self.config.num_experts:
            names = ("expert_gate", "expert_up", "expert_down")
            kernels = tuple(getattr(self, name).beside(adapter(name)) for name in names)
            bias = self.router.bias
            router = Router(self.router.kernel[...], None if bias is None else bias[...])
            return mixture(self.config, normed, router, kernels, gated, counted)
        inner = (getattr(self, name)(normed, adapter(name)) for name in ("gate", "up"))
        return self.down(gated(self.config, *inner), adapter("down")), None

    def normed_heads(self, name: str, x: Float[Array, "batch tokens heads head_dim"]) -> Array:
        """x through a norm of each head, or of all heads together, as wide as its weight."""
        width = getattr(self, name).shape[-1]
        return self.normed(name, x.reshape(*x.shape[:2], -1, width)).reshape(x.shape)

    def added(self, norm: str, x: Array) -> Array:
        """What attention or MLP add to the residual stream."""
        x, scale = self.normed(norm, x), self.config.residual_scale
        return x if scale == 1.0 else x * scale


def _fresh_vector(config: Architecture, row: Parameter) -> Array:
    """Of an untrained model: a norm's weight, which changes nothing, or sinks of logit 0."""
    is_norm = row.path[-1].endswith("norm")
    value = 1.0 - family_of(config).norm_offset if is_norm else 0.0
    return jnp.full(row.shape(config)[-1], value)


def _norm_weight(config: Architecture, weight: Array) -> Array:
    offset = family_of(config).norm_offset
    return weight if offset == 0.0 else weight.astype(jnp.float32) + offset


class Decoder(nnx.Module):
    """Embedding, scanned layers, final norm and (unless tied) an unembedding; `form` is
    how the kernels are held (held_kernels.py)."""

    def __init__(self, config: Architecture, rngs: nnx.Rngs, *, form: str = ""):
        self.config = config
        normal = nnx.initializers.normal(0.02)
        shape = (config.vocab_size, config.hidden_size)
        self.embedding = nnx.Param(normal(rngs.params(), shape))

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stacked(rngs):
            return Layer(config, form, rngs)

        self.layers = stacked(rngs)
        self.final_norm = nnx.Param(_fresh_vector(config, tensor_names(config)["final_norm",]))
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
        watch: Watch = NOTHING_WATCHED,
    ) -> tuple[Float[Array, "batch tokens width"], Any, Watched]:
        """Final hidden states, after the last norm; the plan's carry after all layers; and what
        was to be watched."""
        config, (capture, counted) = self.config, watch
        x = constrain(self.embedding[...].astype(dtype)[tokens], "batch", None, "width")
        if config.embedding_scale != 1.0:
            x = x * jnp.asarray(config.embedding_scale, dtype)
        # In the layers' order: each host of several must trace the same program.
        ropes = dict.fromkeys(kind.rope for kind in config.layer_kinds)
        angles = {rope: rope_angles(config, rope, positions) for rope in ropes if rope is not None}
        if config.attention_cap is not None:
            plan = functools.partial(plan, cap=config.attention_cap)
        graph, stacked = nnx.split(self.layers)
        shared = Shared(angles, plan, counted)

        def one_layer(kind, state, inputs):
            x, carry, watched = state
            index, weights, adapter = inputs
            x, carry, loads = nnx.merge(graph, weights)(x, shared, index, carry, adapter, kind)
            captured = _captured(watched.captured, capture, index + 1, x)
            if watched.loads is None:
                return x, carry, Watched(captured, None)
            return x, carry, Watched(captured, watched.loads.at[index].set(loads.sum(0)))

        def layer_of(kind):
            layer = functools.partial(one_layer, kind)
            return layer if remat == "none" else jax.checkpoint(layer, policy=REMAT_POLICIES[remat])

        captured = jnp.zeros((len(capture), *x.shape), dtype) if capture else None
        loads = None
        if config.num_experts and counted is not None:
            loads = jnp.zeros((config.num_layers, 2, config.num_experts))
        state = x, carry, Watched(_captured(captured, capture, 0, x), loads)
        inputs = jnp.arange(config.num_layers), stacked, adapters
        for stretch in config.stretches:
            layers = {kind: layer_of(kind) for kind in stretch.kinds}
            state = _scan_stretch(stretch, layers, state, inputs)
        x, carry, watched = state
        x = rms_norm(x, _norm_weight(config, self.final_norm[...]), config.rms_norm_eps)
        if config.logits_divisor != 1.0:
            x = x / config.logits_divisor
        return x, carry, watched


def _captured(captured: Any, capture: tuple[int, ...], layers: int | Array, x: Array) -> Any:
    """What has been captured once x has gone through so many layers."""
    if not capture:
        return None
    here = jnp.array(capture) == layers
    return jnp.where(here[:, None, None, None], x, captured)


def _scan_stretch(stretch: Stretch, layers: dict[LayerKind, Any], state: Any, inputs: Any) -> Any:
    """The state after the layers of a stretch; `inputs` are stacked, of all the model's layers."""
    kinds = stretch.kinds
    if (stretch.start, stretch.stop) != (0, len(inputs[0])):
        inputs = jax.tree.map(lambda leaf: leaf[stretch.start : stretch.stop], inputs)
    if len(kinds) == 1:
        return jax.lax.scan(lambda *now: (layers[kinds[0]](*now), None), state, inputs)[0]

    def group(state, inputs):
        for place, kind in enumerate(kinds):
            state = layers[kind](state, jax.tree.map(lambda leaf: leaf[place], inputs))  # noqa: B023
        return state, None

    shape = stretch.groups, len(kinds)
    return jax.lax.scan(
        group, state, jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), inputs)
    )[0]


def rope_angles(config: Architecture, rope: Rope, positions: Int[Array, "batch tokens"]):
    """(cos, sin) of the queries and of the keys, each float32[batch, tokens, head_dim/2], with the
    rope scaling's factor and, of the queries, what they grow by."""
    frequencies, factor = rope_frequencies(config, rope)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    of_keys = jnp.cos(angles) * factor, jnp.sin(angles) * factor
    growth = config.query_growth
    if growth is None:
        return of_keys, of_keys
    steps = jnp.floor_divide(positions, growth.positions).astype(jnp.float32)
    grown = (1.0 + growth.beta * jnp.log1p(steps))[..., None]
    return tuple(angle * grown for angle in of_keys), of_keys
