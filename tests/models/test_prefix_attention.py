"""A prompt and its branches: positions, who sees whom, and the same numbers from the two blocks as
from the dense reference (training/test_shared_prefix.py: as from separate rows)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from causal_rows import MIXED_WINDOWS, assert_close_trees, random_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from walk_jaxpr import array_shapes

from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.forward import forward
from emergent_alignment.models.model import random_params
from emergent_alignment.models.prefix_attention import prefix_plan


@functools.cache
def prefix_forward(config, layout: PrefixLayout, implementation: str):
    """jitted (params, tokens, prompt_lengths, weights) → (hidden, gradient of Σ hidden·weights)."""

    def total(params, tokens, prompt_lengths, weights):
        plan = prefix_plan(layout, prompt_lengths, implementation)
        positions = layout.positions(prompt_lengths)
        hidden, _ = forward(config, params, tokens, positions, plan)
        return (hidden * weights).sum(), hidden

    def run(*inputs):
        (_, hidden), gradient = jax.value_and_grad(total, has_aux=True)(*inputs)
        return hidden, gradient

    return jax.jit(run)


def real_tokens(layout: PrefixLayout, prompt_lengths, branch_lengths) -> np.ndarray:
    """bool[batch, tokens]: which places of a row hold a token of the prompt or of a branch."""
    prompt = np.arange(layout.prompt) < np.asarray(prompt_lengths)[:, None]
    branches = np.arange(layout.branch) < np.asarray(branch_lengths)[:, :, None]
    return np.concatenate([prompt, branches.reshape(len(prompt), -1)], axis=1)


def draw_lengths(draw, layout: PrefixLayout, batch: int):
    prompts = draw.integers(1, layout.prompt + 1, batch).astype(np.int32)
    return prompts, draw.integers(0, layout.branch + 1, (batch, layout.branches)).astype(np.int32)


LAYOUTS = [
    ("llama", {}, PrefixLayout(6, 3, 4)),
    ("qwen3", MIXED_WINDOWS, PrefixLayout(7, 2, 6)),
    ("mistral", {"num_kv_heads": 1}, PrefixLayout(9, 0, 0)),
]


@pytest.mark.parametrize(("family", "changes", "layout"), LAYOUTS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_block_attention_equals_dense_attention_and_so_do_the_gradients(
    tiny_config, tiny_params, family, changes, layout, seed
):
    config = tiny_config(family, **changes)
    draw = np.random.default_rng(seed)
    prompt_lengths, branch_lengths = draw_lengths(draw, layout, batch=3)
    size = layout.prompt + layout.branches * layout.branch
    tokens = random_tokens(seed, 3, size)
    real = real_tokens(layout, prompt_lengths, branch_lengths)[..., None]
    weights = real * draw.standard_normal((3, size, config.hidden_size)).astype(np.float32)
    inputs = (tiny_params(config), tokens, prompt_lengths, weights)
    dense, dense_gradient = prefix_forward(config, layout, "dense")(*inputs)
    blocks, blocks_gradient = prefix_forward(config, layout, "blocks")(*inputs)
    assert_close_trees(blocks * real, dense * real, 1e-5)
    assert_close_trees(blocks_gradient, dense_gradient, 1e-5)


def test_positions_of_each_branch_go_on_from_the_prompts_true_length():
    positions = PrefixLayout(prompt=4, branches=2, branch=3).positions(jnp.array([2, 4]))
    assert positions.tolist() == [
        [0, 1, 2, 3, 2, 3, 4, 2, 3, 4],
        [0, 1, 2, 3, 4, 5, 6, 4, 5, 6],
    ]
    assert positions.dtype == jnp.int32


@pytest.mark.parametrize("implementation", ["blocks", "dense"])
@settings(max_examples=5)
@given(seed=st.integers(0, 2**31))
def test_tokens_in_the_padding_change_no_bit_of_output_or_gradient(
    tiny_config, tiny_params, implementation, seed
):
    config, layout = tiny_config("qwen3", **MIXED_WINDOWS), PrefixLayout(7, 2, 6)
    draw = np.random.default_rng(seed)
    prompt_lengths, branch_lengths = draw_lengths(draw, layout, batch=3)
    real = real_tokens(layout, prompt_lengths, branch_lengths)
    weights = real[..., None] * draw.standard_normal((*real.shape, 32)).astype(np.float32)
    run = prefix_forward(config, layout, implementation)
    results = []
    for padding in (random_tokens(seed, *real.shape), np.zeros_like(real, np.int32)):
        tokens = np.where(real, random_tokens(seed + 1, *real.shape), padding)
        hidden, gradient = run(tiny_params(config), tokens, prompt_lengths, weights)
        results.append((hidden * real[..., None], gradient))
    for one, other in zip(*map(jax.tree.leaves, results)):
        np.testing.assert_array_equal(one, other)


def test_blocks_make_no_square_of_tokens_by_tokens(tiny_config, tiny_params):
    config, layout = tiny_config("llama"), PrefixLayout(12, 3, 7)
    size = 12 + 3 * 7  # 33: no other size of the model
    inputs = (jnp.zeros((2, size), jnp.int32), jnp.array([4, 11]), jnp.ones((2, size, 32)))

    def squares(implementation):
        run = prefix_forward(config, layout, implementation)
        shapes = array_shapes(jax.make_jaxpr(run)(tiny_params(config), *inputs).jaxpr)
        return [shape for shape in shapes if shape[-2:] == (size, size)]

    assert squares("dense"), "the walk must see the dense mask"
    assert not squares("blocks")


def test_the_traced_and_lowered_program_does_not_grow_with_depth(tiny_config):
    layout = PrefixLayout(6, 3, 4)

    def sizes(num_layers):
        config = tiny_config("qwen3", num_layers=num_layers, layer_windows=(None,) * num_layers)
        run = prefix_forward(config, layout, "blocks")
        params = jax.eval_shape(lambda: random_params(config))
        inputs = (params, jnp.zeros((2, 18), jnp.int32), jnp.ones(2, jnp.int32))
        inputs += (jnp.ones((2, 18, 32)),)
        return len(str(jax.make_jaxpr(run)(*inputs))), len(run.lower(*inputs).as_text())

    for shallow, deep in zip(sizes(4), sizes(30)):
        assert abs(deep - shallow) < 0.02 * shallow, f"4 layers: {shallow}, 30 layers: {deep}"
