"""Frozen parameters in fewer bytes: bfloat16, or int8 kernels with a scale an output channel.

What the decoder makes of them is in decoder.py (`project`); no float copy of the layers exists.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from emergent_alignment.models.names import HELD_IN_INT8

FROZEN_DTYPES = ("", "bfloat16", "int8")


def hold_frozen(params: dict, dtype_name: str) -> dict:
    """Base parameters as the frozen copy is to be held; "" leaves them as they are.

    `bfloat16` casts every leaf. `int8` stores the kernels of the seven projections of all layers
    as int8 with a float32 "scale" [layers, out] beside them, and everything else as bfloat16:
    embedding and unembedding meet every log-prob directly, and norms and biases are next to
    nothing in size. Symmetric absmax, one scale an output channel (Dettmers et al. 2022,
    LLM.int8(), 2208.07339, section 2, of the weights alone: activations keep their dtype).

    With LoRA this is the base that the policy computes with (as in QLoRA, Dettmers et al. 2023,
    2305.14314), so that at step 0 the policy still equals the frozen copy; adapters trained on an
    int8 base fit that base, and the unquantised one nearly. With full fine-tuning the policy starts
    from other numbers than the reference's. Measured log-probs: docs/decisions.md.
    """
    if dtype_name not in FROZEN_DTYPES:
        raise ValueError(f"{dtype_name!r} is unknown; known: {FROZEN_DTYPES}")
    if not dtype_name:
        return params
    held = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    if dtype_name == "int8":
        for name in _kernels(params):
            kernel, scale = quantise(params["layers"][name]["kernel"])
            held["layers"][name] |= {"kernel": kernel, "scale": scale}
    return held


def is_int8(params: dict) -> bool:
    """Whether the kernels have scales beside them."""
    return any("scale" in params["layers"][name] for name in _kernels(params))


def dequantised(params: dict) -> dict:
    """int8 parameters as float32 ones without scales, which compute the same; others unchanged."""
    if not is_int8(params):
        return params
    plain = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    for name in _kernels(params):
        projection = plain["layers"][name]
        projection["kernel"] *= projection.pop("scale")[..., None, :]
    return plain


def _kernels(params: dict) -> list[str]:
    """The projections of such a model that int8 may hold."""
    return [name for name in HELD_IN_INT8 if name in params["layers"]]


@jax.jit
def quantise(
    kernel: Float[Array, "*layers width_in width_out"],
) -> tuple[Int8[Array, "*layers width_in width_out"], Float[Array, "*layers width_out"]]:
    """(q, s) with kernel ≈ q · s: s = max |kernel| / 127 over the inputs of each output channel,
    1 where a channel is all zeros."""
    wide = kernel.astype(jnp.float32)
    scale = jnp.abs(wide).max(-2) / 127
    scale = jnp.where(scale == 0, 1.0, scale)
    return jnp.round(wide / scale[..., None, :]).astype(jnp.int8), scale
