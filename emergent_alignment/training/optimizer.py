"""The optimizer: AdamW, or Adafactor's factored second moment, with a warm-up and a schedule,
behind gradient clipping; the moments are held in a dtype of choice, and what is held in 16 bits is
rounded at random."""

import functools
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt32

from emergent_alignment.settings import Section, setting
from emergent_alignment.training.two_gradients import moments_apart

RateSchedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class OptimizerSection(Section):
    """The optimizer, its learning rate and its moments."""

    kind: Literal["adamw", "adafactor"] = setting(
        "adamw", "The algorithm; adafactor takes next to no memory, and ignores b1, b2 and epsilon."
    )
    moment_dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "The dtype of the moments; bfloat16 is half the memory, rounded at random."
    )
    learning_rate: float = setting(
        1e-4, "The learning rate at its peak, after the warm-up.", at_least=0
    )
    schedule: RateSchedule = setting("linear", "How the learning rate falls after the warm-up.")
    warmup_steps: int = setting(5, "Steps until the learning rate has its peak.", at_least=0)
    weight_decay: float = setting(
        0.01, "Decay of matrices; norms and biases have none.", at_least=0
    )
    b1: float = setting(0.9, "Decay of adamw's first moment.", at_least=0, less_than=1)
    b2: float = setting(0.999, "Decay of adamw's second moment.", at_least=0, less_than=1)
    epsilon: float = setting(1e-8, "What adamw adds to the root of the second moment.", more_than=0)
    clip_norm: float = setting(
        1.0, "Longer gradients are cut to this global norm; 0 does not clip.", at_least=0
    )
    moments: Literal["shared", "own"] = setting(
        "shared",
        "own: the gradients of the task and of the alignment have moments (and clipping) of their "
        "own, and their updates add up.",
    )


def learning_rate_schedule(settings: OptimizerSection, num_steps: int) -> optax.Schedule:
    """Linear warm-up, then `constant`, `linear` to zero or `cosine` to zero over the rest.

    Raises ValueError for another name.
    """
    peak, warmup = settings.learning_rate, settings.warmup_steps
    rest = max(num_steps - warmup, 1)
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
    }
    if settings.schedule not in after:
        raise ValueError(f"optimizer.schedule: {settings.schedule!r}; known: {', '.join(after)}")
    # The first step already moves: it is step 1 of the warm-up, not step 0.
    ramp = optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
    return optax.join_schedules([ramp, after[settings.schedule]()], [warmup])


def make_optimizer(
    settings: OptimizerSection | Any, num_steps: int
) -> optax.GradientTransformation:
    """clip → scale by moments → decay matrices → learning rate.

    adamw      two moments a parameter (Loshchilov & Hutter 2019).
    adafactor  no first moment, and of the second only the means of rows and columns (Shazeer &
               Stern 2018, algorithm 4), for matrices of at least 128 × 128; smaller ones, and so
               most LoRA adapters, keep a whole one. It has a decay of its own, 1 − t^-0.8 (b1,
               b2 and epsilon are adamw's), and clips each array's update to a root mean square
               of 1. Learning rate and weight decay mean what they mean with adamw.

    Parameters of 16 bits are moved so that `optax.apply_updates` gives what is due, rounded at
    random (`arriving`).

    Settings are the section, or a mapping of its fields as config files have it. The same ones
    give the same object, so that runs of one process share what was compiled with it. Raises
    ValueError for another `settings.kind`.
    """
    if not isinstance(settings, OptimizerSection):
        settings = OptimizerSection(**settings)
    return _made(settings, num_steps)


@functools.lru_cache(maxsize=16)
def _made(settings: OptimizerSection, num_steps: int) -> optax.GradientTransformation:
    if settings.moments == "shared":
        return arriving(_made_alone(settings, num_steps))
    alignment = replace(settings, weight_decay=0.0)  # parameters decay once
    parts = (_made_alone(own, num_steps) for own in (settings, alignment))
    return arriving(moments_apart(*parts))


def _made_alone(settings: OptimizerSection, num_steps: int) -> optax.GradientTransformation:
    kinds = {
        "adamw": lambda: optax.scale_by_adam(settings.b1, settings.b2, settings.epsilon),
        "adafactor": optax.scale_by_factored_rms,
    }
    if settings.kind not in kinds:
        raise ValueError(f"optimizer.kind: {settings.kind!r}; known: {', '.join(kinds)}")
    scaled = [moments_in(settings.moment_dtype, kinds[settings.kind]())]
    if settings.kind == "adafactor":
        scaled.append(optax.clip_by_block_rms(1.0))
    optimizer = optax.chain(
        *scaled,
        optax.add_decayed_weights(settings.weight_decay, is_matrix),
        optax.scale_by_learning_rate(learning_rate_schedule(settings, num_steps)),
    )
    if settings.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(settings.clip_norm), optimizer)
    return optimizer


def arriving(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, computed in float32, with updates that arrive in parameters of 16 bits.

    A bfloat16 of 0.02 has neighbours 1.2e-4 away: a step of 1e-5, rounded to the nearest, is lost,
    and so are all that follow. Instead the sum is rounded at random, up as often as it is near its
    upper neighbour, and right on average; what is returned is its distance from the parameter, in
    float32. float32 parameters, and their programs, are left as `inner` has them. The count of
    the state alone decides the random bits, so that a resumed run draws the same ones.
    """

    def update(gradients, state, params):
        exact = (_floats_to(tree, jnp.float32) for tree in (gradients, params))
        updates, moved = inner.update(next(exact), state, next(exact))
        count = optax.tree_utils.tree_get_all_with_path(state, "count")[0][1]
        key = jax.random.fold_in(jax.random.key(1), count)
        return _rounded_updates(updates, params, key), moved

    return optax.GradientTransformation(inner.init, update)


def _rounded_updates(updates: Any, params: Any, key: jax.Array) -> Any:
    def rounded(place, update, held):
        if held.dtype not in (jnp.bfloat16, jnp.float16):
            return update
        exact = held.astype(jnp.float32)
        own = jax.random.fold_in(key, place)
        return _at_random(exact + update, held.dtype, own).astype(jnp.float32) - exact

    leaves, structure = jax.tree.flatten(updates)
    pairs = zip(leaves, structure.flatten_up_to(params), strict=True)
    return structure.unflatten(rounded(place, *pair) for place, pair in enumerate(pairs))


def moments_in(dtype: str, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, whose state is moments and a count, with all its moments held in float32 or
    bfloat16, whatever the parameters are in. It computes in float32.

    bfloat16 has 8 significant bits. Rounded to the nearest, a second moment with b2 = 0.999 stops
    at a quarter of a steady gradient's square after 256 steps, and never comes down again: a step
    changes it by less than half its last bit. So it is rounded at random, up as often as it is
    near its upper neighbour, and right on average. What that costs is a hash for each moment: on
    CPU a step over 20M parameters takes 0.11 instead of 0.06 s, and copies the moments while it
    runs; compiled for a TPU it needs no more memory than with float32. The count alone decides
    the random bits, so that a resumed run draws the same ones.
    """

    def init(params):
        return inner.init(_floats_to(params, dtype))

    def update(gradients, state, params=None):
        exact = (_floats_to(tree, jnp.float32) for tree in (gradients, state, params))
        updates, moved = inner.update(*exact)
        if dtype == "bfloat16":
            moved = _rounded_at_random(moved, jax.random.fold_in(jax.random.key(0), state.count))
        return updates, moved

    return optax.GradientTransformation(init, update)


def _floats_to(tree: Any, dtype: str | jnp.dtype) -> Any:
    def cast(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def _rounded_at_random(tree: Any, key: jax.Array) -> Any:
    """float32 leaves as bfloat16 whose expectation they are; others as they are."""

    def rounded(leaf, place):
        if leaf.dtype != jnp.float32:
            return leaf
        return _at_random(leaf, jnp.bfloat16, jax.random.fold_in(key, place))

    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(rounded(leaf, place) for place, leaf in enumerate(leaves))


def _at_random(leaf: Float[Array, "..."], dtype: Any, key: jax.Array) -> Array:
    """A float32 array as bfloat16 or float16 whose expectation it is; what the dtype has is kept.

    A bfloat16 is the upper half of a float32: add 16 random bits to the lower half, and cut it.
    A float16 has 10 bits behind the first one, and none below 2⁻²⁴.
    """
    noise = _random_bits(key, leaf.shape) >> 16
    bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    if dtype == jnp.bfloat16:
        return jax.lax.bitcast_convert_type(((bits + noise) >> 16).astype(jnp.uint16), dtype)
    power = jax.lax.bitcast_convert_type(bits & jnp.uint32(0x7F800000), jnp.float32)
    unit = jnp.maximum(power * 2.0**-10, 2.0**-24)
    return (jnp.floor(leaf / unit + noise.astype(jnp.float32) * 2.0**-16) * unit).astype(dtype)


def _random_bits(key: jax.Array, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """A hash of each element's place and of the key (the finalizer of MurmurHash3, Appleby).

    XLA fuses it into the loop that rounds, on any sharding. With jax.random.bits a step over 20M
    parameters took 5 times as long (CPU), and held 6 times the moments' bytes while it drew.
    """
    bits = jax.random.bits(key, (), jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        bits += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % (1 << 32))
        stride *= shape[axis]
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def is_matrix(params: dict) -> dict:
    """Which leaves are decayed: kernels, embeddings and adapters, not norms and biases. Leaves
    of the layers have the layers' axis in front, and biases of experts that of experts."""

    def decays(path, leaf):
        keys = [getattr(key, "key", None) for key in path]
        return leaf.ndim - ("layers" in keys) >= 2 and "bias" not in keys[-1:]

    return jax.tree_util.tree_map_with_path(decays, params)
