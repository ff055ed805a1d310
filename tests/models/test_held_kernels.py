"""Kernels in 8 bits and 4: how near they are to what they were made of, and what they take."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType

from emergent_alignment.errors import UserError
from emergent_alignment.models.frozen import hold_frozen
from emergent_alignment.models.held_kernels import NF4_LEVELS, Kernel, quantise, tile_of
from emergent_alignment.models.lora import PROJECTIONS
from emergent_alignment.models.placement import check_mesh

LEVELS = np.array(NF4_LEVELS)
# Half the widest gap between two levels, in units of a scale.
HALF_A_STEP = {"int4": 0.5, "nf4": np.diff(LEVELS).max() / 2}


@st.composite
def kernels(draw):
    """Of several layers or experts, of any size of numbers, with a tile of zeros among them."""
    before = draw(st.sampled_from([(), (2,), (2, 3)]))
    width_in = draw(st.sampled_from([16, 24, 64, 96, 128, 192]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kernel = random.standard_normal((*before, width_in, 5)).astype(np.float32)
    kernel *= np.float32(10.0) ** random.integers(-6, 4, (*before, width_in, 1))
    kernel[..., : tile_of(width_in), 1] = 0.0
    return kernel


@settings(max_examples=40, deadline=None)
@given(kernels(), st.sampled_from(["int4", "nf4"]))
def test_four_bits_are_within_half_a_step_of_every_tile_s_own_scale(kernel, form):
    *before, width_in, width_out = kernel.shape
    numbers, scale = quantise(jnp.asarray(kernel), form)
    held = Kernel(numbers, scale, form)
    tiles = width_in // tile_of(width_in)
    assert held.shape == kernel.shape and scale.shape == (*before, tiles, width_out)
    off = np.abs(np.asarray(held.dequantised(), np.float64) - kernel)
    by_tile = off.reshape(*before, tiles, -1, width_out)
    assert (by_tile <= 1.0001 * HALF_A_STEP[form] * np.asarray(scale)[..., None, :]).all()
    peaks = np.abs(kernel.reshape(by_tile.shape)).max(-2)
    largest = np.abs(held.dequantised()).reshape(by_tile.shape).max(-2)
    np.testing.assert_allclose(largest, peaks, rtol=1e-6)


@pytest.mark.parametrize("form", ["int4", "nf4"])
def test_four_bits_of_a_small_kernel_by_hand(form):
    """Two tiles of two layers, and each number the nearest of the sixteen."""
    kernel = np.random.default_rng(0).standard_normal((2, 128, 3)).astype(np.float32)
    levels = LEVELS if form == "nf4" else np.arange(-7, 8) / 7
    wanted = np.zeros_like(kernel)
    for layer, tile, channel in np.ndindex(2, 2, 3):
        own = kernel[layer, 64 * tile : 64 * (tile + 1), channel]
        peak = np.abs(own).max()
        nearest = np.abs(own[:, None] / peak - levels).argmin(1)
        wanted[layer, 64 * tile : 64 * (tile + 1), channel] = levels[nearest] * peak
    held = Kernel(*quantise(jnp.asarray(kernel), form), form)
    np.testing.assert_allclose(held.dequantised(), wanted, rtol=1e-6)


def test_the_levels_of_nf4_are_the_quantiles_of_its_definition():
    """QLoRA, section 3: 2⁴ quantiles of N(0, 1), of the positive half eight and of the negative
    seven beside an exact zero, divided by the largest. The ends stand for the mean of 1/32 and
    1/30 of the probability, as in the authors' program."""
    end, quantile = 1 - (1 / 32 + 1 / 30) / 2, statistics.NormalDist().inv_cdf
    positive = [quantile(p) for p in np.linspace(end, 0.5, 9)[:-1]]
    negative = [-quantile(p) for p in np.linspace(end, 0.5, 8)[:-1]]
    wanted = np.sort([*positive, 0.0, *negative]) / max(positive)
    np.testing.assert_allclose(LEVELS, wanted, atol=2e-6)


@pytest.mark.parametrize(("width", "tile"), [(576, 64), (4864, 64), (48, 48), (72, 36), (16, 16)])
def test_a_tile_is_the_largest_even_divisor(width, tile):
    assert tile_of(width) == tile


def test_a_width_without_a_tile_is_named():
    with pytest.raises(UserError, match="none divides the 74 of a kernel; set int8"):
        quantise(jnp.zeros((74, 4)), "nf4")


@pytest.mark.parametrize("form", ["int4", "nf4"])
def test_a_number_takes_four_bits_and_its_part_of_a_scale(tiny_config, tiny_params, form):
    config = tiny_config(hidden_size=128, intermediate_size=192, head_dim=32)
    params = tiny_params(config)
    layers = hold_frozen(params, form)["layers"]
    size = sum(params["layers"][name]["kernel"].size for name in PROJECTIONS)
    held = sum(leaf.nbytes for name in PROJECTIONS for leaf in jax.tree.leaves(layers[name]))
    assert held == size * (1 / 2 + 4 / 64) < 0.6 * size


@pytest.mark.parametrize(
    ("axis", "count", "said"), [("fsdp", 4, "has 2 embed"), ("tensor", 4, "has 6 mlp")]
)
def test_a_mesh_that_cuts_a_tile_is_refused(tiny_config, axis, count, said):
    sizes = {"data": 1, "fsdp": 1, "tensor": 1, "decode": 1, "expert": 1} | {axis: count}
    mesh = AbstractMesh(tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * len(sizes))
    config = tiny_config(
        hidden_size=128, intermediate_size=384, num_heads=8, num_kv_heads=4, head_dim=64
    )
    check_mesh(mesh, config)
    check_mesh(mesh, config, "int8")
    with pytest.raises(UserError, match=rf"{axis}=4, but `layers\.\w+\.nf4_scale` {said}"):
        check_mesh(mesh, config, "nf4")
