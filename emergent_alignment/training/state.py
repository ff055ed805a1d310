"""What training changes: trainable parameters and the optimizer's state, one pytree."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt32

from emergent_alignment.models.lora import LoraConfig, attach, init_adapters
from emergent_alignment.models.placement import shardings_of
from emergent_alignment.randomness import Purpose, key_for


@dataclass(frozen=True)
class TrainState:
    """trainable: adapters (LoRA) or all parameters; optimizer: its moments and count."""

    trainable: Any
    optimizer: Any


jax.tree_util.register_dataclass(TrainState)
STEERING = "steering"  # beside the frozen parameters (models/forward.BESIDE_THE_BASE)
Grow = Callable[[Any], Any]


def _as_it_is(trainable: Any) -> Any:
    return trainable


def initial_state(
    params: dict,
    lora: LoraConfig | None,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh | None = None,
    grow: Grow = _as_it_is,
) -> TrainState:
    """Fresh adapters beside the base, or a copy of all parameters (the frozen copy stays), what
    `grow` makes of them (it may add a head, see heads.py), and fresh moments; on a mesh all of
    it lies as the parameters do."""

    fresh = functools.partial(_fresh, lora, optimizer, grow)
    # As numpy, of which every host of a mesh has it; where only shapes are asked for, too.
    with jax.ensure_compile_time_eval():
        words = np.asarray(jax.random.key_data(key_for(seed, Purpose.ADAPTERS)))
    if mesh is None:
        return fresh(params, words)
    state = jax.eval_shape(fresh, params, words)
    placed = shardings_of(mesh, state, like=state.trainable)
    return jax.jit(fresh, out_shardings=placed)(params, words)


def committed(state: TrainState) -> TrainState:
    """The state bound to the devices it lies on, as one that is read from a checkpoint is: to JAX
    the two are different arguments, and a run that goes on would compile its step again."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf, leaf.sharding), state)


# Where a parameter is committed to its device, so is the state, read or not: a step gives it back
# committed, and would be compiled again for it.
@functools.partial(jax.jit, static_argnums=(0, 1, 2), keep_unused=True)
def _fresh(lora, optimizer, grow, params: dict, words: UInt32[Array, "words"]) -> TrainState:
    if lora is not None:
        trainable = init_adapters(params, lora, jax.random.wrap_key_data(words))
    else:
        trainable = jax.tree.map(jnp.copy, params)
    trainable = grow(trainable)
    return TrainState(trainable, optimizer.init(trainable))


def policy_params(trainable: Any, frozen: dict, lora: LoraConfig | None) -> dict:
    """The policy: the frozen base with adapters, or the trained parameters themselves; steered
    where `frozen` says so (`steered`)."""
    policy = attach(frozen, trainable, lora) if lora is not None else trainable
    if STEERING not in frozen:
        return policy
    return policy | {"adapters": policy.get("adapters", {}) | {"residual": frozen[STEERING]}}


def steered(frozen: dict, shift: Float[Array, "layers width"] | None) -> dict:
    """The frozen parameters of a step whose policy has `shift` added to the residual stream after
    each layer; as themselves they compute what they did. None: themselves."""
    return frozen if shift is None else frozen | {STEERING: shift}


def fingerprint(params: Any) -> str:
    """Who these parameters are: 16 hex digits from the bits of every leaf, its path and shape.

    Integer sums that wrap around, so that it is the same on any number of devices.
    """
    digest = [0, 0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        label = f"{jax.tree_util.keystr(path)}{leaf.shape}{leaf.dtype}".encode()
        values = [*map(int, _bit_sums(leaf)), *label]
        for value in values:
            digest[0] = (digest[0] * 1_000_003 + value) % (1 << 32)
            digest[1] = (digest[1] * 69_069 + value + 1) % (1 << 32)
    return "".join(f"{part:08x}" for part in digest)


@jax.jit
def _bit_sums(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
    # Each element's place in row-major order, without making one row of a leaf that is cut.
    place, stride = jnp.zeros_like(bits), 1
    for axis in reversed(range(leaf.ndim)):
        step = jnp.uint32(stride % (1 << 32))
        place += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * step
        stride *= leaf.shape[axis]
    place = place * jnp.uint32(2_654_435_761) + 1
    return bits.sum(dtype=jnp.uint32), ((bits ^ (bits >> 15)) * place).sum(dtype=jnp.uint32)
