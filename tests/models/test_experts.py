"""A mixture of experts is the sum, token by token, of those that the router finds likeliest."""

import dataclasses

import jax
import numpy as np
import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.models.architecture import Architecture
from emergent_alignment.models.experts import mixture
from emergent_alignment.models.export import write_peft

CONFIG = Architecture(
    "qwen3_moe", 9, 8, 8, 1, 2, 2, 4, num_experts=5, experts_per_token=2, expert_size=6
)


def silu(x):
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("normalised", [False, True])
def test_a_mixture_is_each_token_s_own_experts(normalised):
    """Of int8 kernels with adapters, written the long way; an expert that nobody chooses, too."""
    config = dataclasses.replace(CONFIG, normalised_experts=normalised)
    draw = np.random.default_rng(0)
    x = draw.standard_normal((2, 7, 8)).astype(np.float32)
    router = draw.standard_normal((8, 5)).astype(np.float32)
    router[:, 3] = 0.0
    kernels, plain = [], []
    for width_in, width_out in ((8, 6), (8, 6), (6, 8)):
        held = draw.integers(-127, 128, (5, width_in, width_out)).astype(np.int8)
        scale = np.float32(draw.uniform(1e-3, 4e-3, (5, width_out)))
        a, b = (
            np.float32(0.3 * draw.standard_normal((5, *shape)))
            for shape in ((width_in, 2), (2, width_out))
        )
        kernels.append((held, scale, {"a": a, "b": b}))
        plain.append(held * np.float64(scale)[:, None] + np.float64(a) @ b)
    found = jax.jit(lambda *given: mixture(config, *given, jax.nn.silu))(x, router, tuple(kernels))
    gate, up, down = plain
    for row, token in np.ndindex(x.shape[:2]):
        own = np.float64(x[row, token])
        likely = np.exp(own @ router)
        likely /= likely.sum()
        chosen = np.argsort(likely)[-2:]
        weights = likely[chosen] / (likely[chosen].sum() if normalised else 1.0)
        wanted = sum(
            weight * ((silu(own @ gate[e]) * (own @ up[e])) @ down[e])
            for weight, e in zip(weights, chosen)
        )
        np.testing.assert_allclose(found[row, token], wanted, rtol=1e-4, atol=1e-4)


def test_adapters_of_experts_have_no_place_in_peft_s_files(tmp_path):
    adapters = {"expert_up": {"a": np.zeros((1, 5, 8, 2)), "b": np.zeros((1, 5, 2, 6))}}
    with pytest.raises(UserError, match="expert_up: PEFT has no names for those of experts"):
        write_peft(
            tmp_path / "out",
            CONFIG,
            adapters,
            rank=2,
            alpha=1.0,
            rank_stabilized=False,
            base_name="a",
        )
    assert not (tmp_path / "out").exists()
