"""A mixture of experts is the sum, token by token, of those that the router finds likeliest."""

import dataclasses

import jax
import numpy as np
import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.models.architecture import Architecture
from emergent_alignment.models.decoder import GATES
from emergent_alignment.models.experts import Grouped, Router, load_balance, mixture
from emergent_alignment.models.export import write_peft
from emergent_alignment.models.held_kernels import Kernel

CONFIG = Architecture(
    "qwen3_moe", 9, 8, 8, 1, 2, 2, 4, num_experts=5, experts_per_token=2, expert_size=6
)


def silu(gate, up):
    return gate / (1 + np.exp(-gate)) * up


def clamped_swiglu(gate, up):
    gate, up = np.minimum(gate, 0.7), np.maximum(np.minimum(up, 0.7), -0.7)
    return gate / (1 + np.exp(-1.702 * gate)) * (up + 1)


@pytest.mark.parametrize(
    ("normalised", "gated", "biased"),
    [(False, silu, False), (True, silu, False), (True, clamped_swiglu, True)],
)
def test_a_mixture_is_each_token_s_own_experts(normalised, gated, biased):
    """Of int8 kernels with adapters, written the long way; an expert that nobody chooses, too."""
    config = dataclasses.replace(CONFIG, normalised_experts=normalised, gate_limit=0.7)
    draw = np.random.default_rng(0)
    x = draw.standard_normal((2, 7, 8)).astype(np.float32)
    router = draw.standard_normal((8, 5)).astype(np.float32)
    router[:, 3] = 0.0
    kernels, plain, biases = [], [], []
    router_bias = np.float32(draw.standard_normal(5)) if biased else None
    for width_in, width_out in ((8, 6), (8, 6), (6, 8)):
        held = draw.integers(-127, 128, (5, width_in, width_out)).astype(np.int8)
        scale = np.float32(draw.uniform(1e-3, 4e-3, (5, width_out)))
        a, b = (
            np.float32(0.3 * draw.standard_normal((5, *shape)))
            for shape in ((width_in, 2), (2, width_out))
        )
        bias = np.float32(draw.standard_normal((5, width_out))) if biased else None
        kernels.append(Grouped(Kernel(held, scale, "int8"), {"a": a, "b": b}, bias))
        biases.append(bias if biased else np.zeros((5, width_out)))
        plain.append(held * np.float64(scale)[:, None] + np.float64(a) @ b)
    counted = draw.random((2, 7)) < 0.7
    gate_of = GATES[gated.__name__]
    mixed = jax.jit(lambda *given: mixture(config, *given[:3], gate_of, given[3]))
    out, loads = mixed(x, Router(router, router_bias), tuple(kernels), counted)
    wanted_loads = np.zeros((2, 2, 5))

    def project(x, which, expert):
        return x @ plain[which][expert] + biases[which][expert]

    for row, token in np.ndindex(x.shape[:2]):
        own = np.float64(x[row, token])
        likely = np.exp(own @ router + (router_bias if biased else 0.0))
        likely /= likely.sum()
        chosen = np.argsort(likely)[-2:]
        weights = likely[chosen] / (likely[chosen].sum() if normalised else 1.0)
        wanted = sum(
            weight * project(gated(project(own, 0, e), project(own, 1, e)), 2, e)
            for weight, e in zip(weights, chosen)
        )
        np.testing.assert_allclose(out[row, token], wanted, rtol=1e-4, atol=1e-4)
        if counted[row, token]:
            wanted_loads[row, 0, chosen] += 1
            wanted_loads[row, 1] += likely
    np.testing.assert_allclose(loads, wanted_loads, rtol=1e-5)


def test_the_load_balance_is_least_where_experts_are_loaded_alike():
    """experts_per_token there, the number of experts where one has all; its gradient takes from an
    expert with more tokens than others."""
    even = np.full((3, 2, 4), 10.0, np.float32)
    even[:, 1] = 5.0  # two experts of four a token, twenty tokens
    np.testing.assert_allclose(load_balance(even), 2.0, rtol=1e-6)
    crowded = np.zeros((1, 2, 4), np.float32)
    crowded[0, :, 1] = 20.0
    np.testing.assert_allclose(load_balance(crowded), 4.0, rtol=1e-6)
    np.testing.assert_allclose(load_balance(np.stack([even[0], crowded[0]])), 3.0, rtol=1e-6)
    assert load_balance(np.zeros((2, 2, 4), np.float32)) == 0.0
    uneven = even.copy()
    uneven[0, 0] = [16, 8, 8, 8]
    slopes = jax.grad(load_balance)(uneven)[0, 1]
    assert slopes[0] > slopes[1] == slopes[2]


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
