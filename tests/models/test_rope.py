"""Rotary frequencies by their definitions (tests/parity compares with transformers)."""

import dataclasses
import math

import numpy as np
import pytest
from tiny_models import LLAMA

from emergent_alignment.errors import UserError
from emergent_alignment.models.config import RopeScaling
from emergent_alignment.models.gguf_rope import recover_llama3_scaling
from emergent_alignment.models.rope import llama3_divisors, rope_frequencies

CONFIG = dataclasses.replace(LLAMA, head_dim=64, rope_theta=500000.0, max_positions=4096)


def frequencies(scaling):
    """The frequencies of a model with 64-dimensional heads, scaled."""
    return rope_frequencies(dataclasses.replace(CONFIG, rope_scaling=scaling))


def test_plain_frequencies_fall_geometrically_from_one():
    plain, factor = frequencies(None)
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain, [500000.0 ** (-i / 32) for i in range(32)], rtol=1e-6)
    assert factor == 1.0


def test_linear_divides_and_dynamic_leaves_frequencies():
    plain, _ = frequencies(None)
    np.testing.assert_array_equal(frequencies(RopeScaling("linear", 4.0))[0], plain / 4)
    np.testing.assert_array_equal(frequencies(RopeScaling("dynamic", 4.0))[0], plain)


def test_llama3_keeps_fast_and_divides_slow_dimensions():
    scaling = RopeScaling("llama3", 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)
    (plain, _), (scaled, factor) = frequencies(None), frequencies(scaling)
    ratio, wavelength = plain / scaled, 2 * math.pi / plain
    np.testing.assert_allclose(ratio[wavelength < 2048], 1.0)
    np.testing.assert_allclose(ratio[wavelength > 8192], 8.0, rtol=1e-6)
    between = ratio[(wavelength > 2048) & (wavelength < 8192)]
    assert len(between) and np.all((between > 1) & (between < 8)) and np.all(np.diff(between) > 0)
    assert factor == 1.0


def test_yarn_interpolates_slow_dimensions_and_scales_attention():
    (plain, _), (scaled, factor) = frequencies(None), frequencies(RopeScaling("yarn", 4.0, 1024))
    assert scaled[0] == plain[0]
    np.testing.assert_allclose(scaled[-1], plain[-1] / 4, rtol=1e-6)
    assert factor == pytest.approx(0.1 * math.log(4) + 1)
    assert frequencies(RopeScaling("yarn", 4.0, 1024, attention_factor=1.5))[1] == 1.5


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling("llama3", 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0),
        RopeScaling("llama3", 32.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0),
        RopeScaling("llama3", 4.0, 4096, low_freq_factor=1.0, high_freq_factor=8.0),
        RopeScaling("llama3", 16.0, 5000, low_freq_factor=1.0, high_freq_factor=5.5),
    ],
)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_llama3_scaling_comes_back_from_its_divisors(scaling, head_dim):
    plain = 500000.0 ** (-np.arange(0, head_dim, 2) / head_dim)
    divisors = llama3_divisors(plain, scaling).astype(np.float32)
    assert recover_llama3_scaling(divisors, 500000.0, head_dim, where="f") == scaling


def test_another_low_factor_comes_back_as_the_same_frequencies():
    original = RopeScaling("llama3", 8.0, 8192, low_freq_factor=2.0, high_freq_factor=6.0)
    plain = 500000.0 ** (-np.arange(0, 128, 2) / 128)
    divisors = llama3_divisors(plain, original)
    found = recover_llama3_scaling(divisors.astype(np.float32), 500000.0, 128, where="f")
    np.testing.assert_allclose(llama3_divisors(plain, found), divisors, rtol=1e-5)


def test_divisors_of_another_kind_are_refused():
    with pytest.raises(UserError, match="not those of Llama 3"):
        recover_llama3_scaling(np.linspace(1, 9, 32, dtype=np.float32), 1e4, 64, where="f")
    with pytest.raises(UserError, match=r"shape \[8\]"):
        recover_llama3_scaling(np.ones(8, np.float32), 1e4, 64, where="f")
    assert recover_llama3_scaling(np.ones(32, np.float32), 1e4, 64, where="f") is None
