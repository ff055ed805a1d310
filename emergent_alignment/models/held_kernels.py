"""A kernel as it is held: as floats, in int8 with a scale an output channel, or in 4 bits with a
scale a tile of inputs. What is made of a float kernel, and what multiplies rows. Which leaves of a
tree are held so is not decided here (frozen.py).
"""

import functools
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, UInt8

from emergent_alignment.errors import UserError

# The leaf beside "kernel" that holds its scales. Its name says how the kernel is to be read.
SCALES = {"int8": "scale", "int4": "int4_scale", "nf4": "nf4_scale"}
# Inputs that share a scale: QLoRA's block (2305.14314, section 3). A float32 scale for each then
# costs half a bit a number.
_LARGEST_TILE, _SMALLEST_TILE = 64, 16
# NormalFloat4: quantiles of a normal distribution, scaled to ±1, with an exact 0 (Dettmers et al.
# 2023, QLoRA, 2305.14314, section 3 and appendix E).
NF4_LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Kernel:
    """A projection's kernel, of all experts where it is theirs, as it is held.

    numbers  [*, in, out]; in 4 bits uint8[*, in/2, out]: of each tile of inputs the first half in
             the lower bits, the second in the upper ones
    scale    [*, out] of int8, [*, tiles, out] of 4 bits, None of floats
    form     "" for floats, or a key of SCALES
    """

    numbers: Num[Array, "*layers held width_out"]
    scale: Float[Array, "..."] | None = None
    form: str = field(default="", metadata={"static": True})

    @classmethod
    def of(cls, projection: dict) -> "Kernel":
        """That of a projection of the parameter tree."""
        form = held_form(projection)
        return cls(projection["kernel"], projection[SCALES[form]] if form else None, form)

    @property
    def shape(self) -> tuple[int, ...]:
        """[*, in, out], however it is held."""
        *before, inputs, outputs = self.numbers.shape
        return *before, inputs * (2 if self.is_tiled else 1), outputs

    @property
    def is_tiled(self) -> bool:
        """Whether scales are of tiles of inputs, so that they must come before the product."""
        return self.form in ("int4", "nf4")

    def matrix(self, dtype: jnp.dtype) -> Float[Array, "*layers width_in width_out"]:
        """What multiplies rows, in their dtype; of int8 without the scale, which multiplies the
        product instead."""
        if not self.is_tiled:
            return self.numbers.astype(dtype)
        values = _VALUES[self.form](_unpacked(self.numbers, self.scale.shape[-2]))
        return (values * self.scale[..., None, :]).reshape(self.shape).astype(dtype)

    def dequantised(self) -> Float[Array, "*layers width_in width_out"]:
        """The kernel that computes the same, in float32."""
        wide = self.matrix(jnp.float32)
        return wide * self.scale[..., None, :] if self.form == "int8" else wide


def held_form(projection: dict) -> str:
    """How a projection of the parameter tree is held: a key of SCALES, or "" for floats."""
    return next((form for form, scale in SCALES.items() if scale in projection), "")


def held_as(params: dict) -> str:
    """How the kernels of a parameter tree are held, likewise."""
    projections = [tree for tree in params["layers"].values() if isinstance(tree, dict)]
    return next(filter(None, map(held_form, projections)), "")


def tile_of(width_in: int) -> int:
    """How many inputs of a kernel share a scale in 4 bits: the largest even number up to 64 that
    divides them. Raises UserError where that is less than 16, and scales would be no less than
    half of what the numbers are."""
    for tile in range(_LARGEST_TILE, _SMALLEST_TILE - 1, -2):
        if width_in % tile == 0:
            return tile
    raise UserError(
        f"config.model.frozen_dtype: in 4 bits an even number of inputs from {_SMALLEST_TILE} to"
        f" {_LARGEST_TILE} shares a scale, and none divides the {width_in} of a kernel; set int8"
    )


def scale_shape(form: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the scales of a kernel [*, in, out]."""
    *before, width_in, width_out = shape
    tiles = () if form == "int8" else (width_in // tile_of(width_in),)
    return *before, *tiles, width_out


@functools.partial(jax.jit, static_argnames="form")
def quantise(
    kernel: Float[Array, "*layers width_in width_out"], form: str = "int8"
) -> tuple[Num[Array, "*layers held width_out"], Float[Array, "..."]]:
    """(numbers, scale) of a Kernel of this form that is near `kernel`; a scale is 1 where all that
    shares it is zero.

    int8  q · s with s = max |kernel| / 127 over the inputs of each output channel
    int4  q · s with s = max |kernel| / 7 over the inputs of a tile, q + 8 being held
    nf4   level q · s with s = max |kernel| over the inputs of a tile, the nearest of NF4_LEVELS

    Layer by layer, so that no more than one is held in float32.
    """
    one_layer = functools.partial(_quantised, form=form)
    return jax.lax.map(one_layer, kernel) if kernel.ndim > 2 else one_layer(kernel)


def _quantised(kernel: Array, form: str) -> tuple[Array, Array]:
    wide = kernel.astype(jnp.float32)
    if form == "int8":
        scale = _scale_of(wide, 127)
        return jnp.round(wide / scale[..., None, :]).astype(jnp.int8), scale
    *before, width_in, width_out = wide.shape
    tile = tile_of(width_in)
    tiles = wide.reshape(*before, width_in // tile, tile, width_out)
    scale = _scale_of(tiles, 7 if form == "int4" else 1)
    numbers = _NUMBERS[form](tiles / scale[..., None, :])
    low, high = jnp.split(numbers.astype(jnp.uint8), 2, axis=-2)
    return (low | (high << 4)).reshape(*before, width_in // 2, width_out), scale


def _scale_of(wide: Array, largest: int) -> Array:
    scale = jnp.abs(wide).max(-2) / largest
    return jnp.where(scale == 0, 1.0, scale)


def _unpacked(packed: UInt8[Array, "*layers half width_out"], tiles: int) -> UInt8[Array, "..."]:
    """[*, tiles, tile, out]."""
    *before, half, width_out = packed.shape
    by_tile = packed.reshape(*before, tiles, half // tiles, width_out)
    return jnp.concatenate([by_tile & 15, by_tile >> 4], axis=-2)


def _int4_numbers(x: Array) -> Array:
    return jnp.round(x) + 8


def _int4_values(numbers: Array) -> Array:
    return numbers.astype(jnp.float32) - 8


def _nf4_numbers(x: Array) -> Array:
    levels = np.float32(NF4_LEVELS)
    between = (levels[1:] + levels[:-1]) / 2
    return sum((x > each).astype(jnp.uint8) for each in between)


def _nf4_values(numbers: Array) -> Array:
    """By choices, which vector units make, rather than by a gather, which not all of them do."""
    levels = [jnp.full(numbers.shape, level, jnp.float32) for level in NF4_LEVELS]
    return jax.lax.select_n(numbers.astype(jnp.int32), *levels)


_NUMBERS = {"int4": _int4_numbers, "nf4": _nf4_numbers}
_VALUES = {"int4": _int4_values, "nf4": _nf4_values}
