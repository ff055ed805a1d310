"""The truths of adapters, on tiny random models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from causal_rows import assert_close_trees, random_tokens, row_logits

from emergent_alignment.models.lora import PROJECTIONS, LoraConfig, attach, init_adapters, merge


def random_adapters(params, lora: LoraConfig, seed: int = 0) -> dict:
    adapters = init_adapters(params, lora, jax.random.key(seed))
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.array(draw.standard_normal(leaf.shape) * 0.1, jnp.float32), adapters
    )


LORAS = [
    LoraConfig(rank=4, alpha=8.0),
    LoraConfig(rank=4, alpha=8.0, rank_stabilized=True),
    LoraConfig(rank=2, alpha=1.0, targets=("query", "down")),
]


@pytest.mark.parametrize("init", ["b_zero", "a_zero"])
def test_fresh_adapters_leave_the_model_bitwise_what_it_was(tiny_config, tiny_params, init):
    config = tiny_config("qwen2")
    params, lora = tiny_params(config), LoraConfig(rank=4, alpha=8.0, init=init)
    adapters = init_adapters(params, lora, jax.random.key(0))
    row = random_tokens(6, 13)
    np.testing.assert_array_equal(
        row_logits(config)(attach(params, adapters, lora), row), row_logits(config)(params, row)
    )
    assert attach(params, None, None) is params


def test_fresh_adapters_have_zero_b_and_a_bounded_by_their_input_width(tiny_config, tiny_params):
    params = tiny_params(tiny_config("llama"))
    adapters = init_adapters(params, LoraConfig(rank=8, alpha=8.0), jax.random.key(3))
    assert set(adapters) == set(PROJECTIONS)
    for name, pair in adapters.items():
        layers, width_in, width_out = params["layers"][name]["kernel"].shape
        assert pair["a"].shape == (layers, width_in, 8) and pair["b"].shape == (
            layers,
            8,
            width_out,
        )
        assert (pair["b"] == 0).all()
        # U(±1/√in) has a standard deviation of 1/√(3 in).
        assert jnp.abs(pair["a"]).max() <= width_in**-0.5
        np.testing.assert_allclose(pair["a"].std(), (3 * width_in) ** -0.5, rtol=0.1)
    assert not (adapters["query"]["a"] == adapters["key"]["a"]).any(), "two draws, not one"


def test_with_a_zero_it_is_b_that_is_drawn_bounded_by_the_rank(tiny_config, tiny_params):
    params = tiny_params(tiny_config("llama"))
    lora = LoraConfig(rank=8, alpha=8.0, init="a_zero")
    for pair in init_adapters(params, lora, jax.random.key(3)).values():
        assert (pair["a"] == 0).all() and jnp.abs(pair["b"]).max() <= 8**-0.5
        np.testing.assert_allclose(pair["b"].std(), 24**-0.5, rtol=0.1)


@pytest.mark.parametrize("lora", LORAS)
def test_attached_adapters_equal_merged_ones(tiny_config, tiny_params, lora):
    config = tiny_config("qwen2")
    params = tiny_params(config)
    adapters, row = random_adapters(params, lora), random_tokens(7, 13)
    attached = row_logits(config)(attach(params, adapters, lora), row)
    merged = row_logits(config)(merge(params, adapters, lora), row)
    base = row_logits(config)(params, row)
    assert jnp.abs(attached - base).max() > 0.1, "the adapters must do something"
    assert_close_trees(attached, merged, 1e-5)


def test_the_scale_is_alpha_over_rank_or_over_its_root():
    assert LoraConfig(rank=16, alpha=32.0).scale == 2.0
    assert LoraConfig(rank=16, alpha=32.0, rank_stabilized=True).scale == 8.0


@pytest.mark.parametrize("lora", LORAS[1:])
def test_gradients_of_adapters_follow_from_those_of_the_merged_kernels(
    tiny_config, tiny_params, lora
):
    """W + s·a·b has dL/da = s·dL/dW·bᵀ and dL/db = s·aᵀ·dL/dW, and nothing else is trained."""
    config = tiny_config("llama")
    params = tiny_params(config)
    adapters, row = random_adapters(params, lora), random_tokens(8, 13)
    weights = np.random.default_rng(8).standard_normal((13, 96)).astype(np.float32)

    def total(params):
        return (row_logits(config)(params, row) * weights).sum()

    gradient = jax.jit(jax.grad(lambda adapters: total(attach(params, adapters, lora))))(adapters)
    kernels = jax.jit(jax.grad(total))(merge(params, adapters, lora))["layers"]
    assert set(gradient) == set(lora.targets)
    for name, pair in gradient.items():
        kernel, own = lora.scale * kernels[name]["kernel"], adapters[name]
        expected = {
            "a": jnp.einsum("lio,lro->lir", kernel, own["b"]),
            "b": jnp.einsum("lir,lio->lro", own["a"], kernel),
        }
        assert_close_trees(pair, expected, 1e-5)


def test_at_the_start_only_b_learns(tiny_config, tiny_params):
    config, lora = tiny_config("mistral"), LORAS[0]
    params, row = tiny_params(config), random_tokens(9, 13)
    adapters = init_adapters(params, lora, jax.random.key(1))

    def total(adapters):
        return jnp.square(row_logits(config)(attach(params, adapters, lora), row)).sum()

    for name, pair in jax.jit(jax.grad(total))(adapters).items():
        assert (pair["a"] == 0).all(), f"{name}: b is zero, so a cannot have a gradient"
        assert (jnp.abs(pair["b"]).max(axis=(1, 2)) > 0).all(), f"{name}: b of some layer is stuck"
