"""The ideal FLOPs of a step, against what XLA compiles for models without attention, and against
masks that are counted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import USERS_FUSIONS

from emergent_alignment.data.batches import ROLES, Batch
from emergent_alignment.models import ideal
from emergent_alignment.models.attention import PrefixLayout, prefix_mask
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.lora import LoraConfig, init_adapters
from emergent_alignment.models.model import random_params
from emergent_alignment.planning.hlo import no_kernels, program_cost
from emergent_alignment.planning.hlo_text import Array
from emergent_alignment.planning.kernels import splash_flops, visited_share, with_grouped
from emergent_alignment.training import branches
from emergent_alignment.training.step import loss_and_gradients
from emergent_alignment.training.step_settings import StepSettings

LAYOUT = PrefixLayout(24, 3, 16)


@pytest.fixture
def without_attention(monkeypatch):
    def plan(layer, query, key, value, carry, window=None):
        heads = query.shape[2] // key.shape[2]
        return query + jnp.repeat(key + value, heads, axis=2), carry

    monkeypatch.setattr(branches, "prefix_plan", lambda *arguments: plan)


def compiled_flops(config, lora, reference) -> float:
    """Matmul FLOPs of a step's loss and gradients, as XLA compiles them."""
    rows, branches = 2, LAYOUT.branches
    tokens = [(rows, LAYOUT.prompt), (rows,), (rows, branches, LAYOUT.branch), (rows, branches)]
    integers = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in tokens)
    given = jax.ShapeDtypeStruct((rows, 2), jnp.float32) if reference else None
    pairs = jax.ShapeDtypeStruct((rows,), jnp.bool_)
    batch = Batch(*integers, pairs, given, ROLES["separate"])
    frozen = jax.eval_shape(lambda: random_params(config))
    trainable = frozen
    if lora is not None:
        trainable = jax.eval_shape(lambda: init_adapters(frozen, lora, jax.random.key(0)))
    settings = StepSettings(config, lora, chunk_size=None)
    step = jax.jit(lambda *arguments: loss_and_gradients(settings, *arguments))
    compiled = step.lower(trainable, frozen, batch).compile(compiler_options=USERS_FUSIONS)
    return program_cost(compiled.as_text()).flops


@pytest.mark.parametrize(
    ("lora", "reference"), [(None, True), (LoraConfig(4, 8.0, targets=("query", "down")), False)]
)
def test_without_attention_xla_compiles_the_ideal(tiny_config, without_attention, lora, reference):
    config = tiny_config("llama", hidden_size=128, intermediate_size=256, num_heads=8)
    wanted = ideal.step_flops(config, LAYOUT, 2, lora, with_reference=reference)
    attention = ideal.forward_flops(config, LAYOUT, 2).attention * (3 if reference else 4)
    found = compiled_flops(config, lora, reference)
    assert found == pytest.approx(wanted - attention, rel=0.02)


def test_visible_pairs_are_those_of_the_mask():
    lengths = jnp.array([LAYOUT.prompt])
    assert ideal.visible_pairs(LAYOUT) == int(prefix_mask(LAYOUT, lengths).sum())


def test_six_flops_a_parameter_and_token(tiny_config):
    config = tiny_config("llama", hidden_size=128, intermediate_size=256)
    params = jax.eval_shape(lambda: random_params(config))
    matrices = sum(np.prod(x.shape) for x in jax.tree.leaves(params["layers"]) if x.ndim == 3)
    plain = PrefixLayout(0, 1, 1)  # one token, which meets the vocabulary and itself
    found = ideal.step_flops(config, plain, 1, None, with_reference=True)
    vocabulary = config.vocab_size * config.hidden_size
    attention = 12 * config.num_layers * config.num_heads * config.head_dim
    assert found == 6 * (matrices + vocabulary) + attention


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_of_experts_those_that_are_chosen_count(family):
    sizes = {"num_experts": 8, "experts_per_token": 3, "expert_size": 12, "gate_limit": 7.0}
    config = ModelConfig(family, 96, 32, 48, 2, 4, 2, 16, **sizes)
    attention = 32 * (64 + 32 + 32) + 64 * 32
    kernels = attention + 32 * 8 + 3 * 3 * 32 * 12
    assert ideal.forward_flops(config, PrefixLayout(0, 1, 1), 1).kernels == 2 * 2 * kernels


def test_reading_all_at_once_or_in_two_parts_costs_the_same(tiny_config):
    config = tiny_config("qwen3")
    whole = ideal.causal_read_flops(config, 3, 0, 10, 1)
    first = ideal.causal_read_flops(config, 3, 0, 6, 0)
    assert whole == first + ideal.causal_read_flops(config, 3, 6, 4, 1)


def test_the_kernels_visit_at_least_what_is_visible(tiny_config):
    config = tiny_config("qwen3", num_layers=1)
    layout = PrefixLayout(1024, 3, 512)
    share = visited_share(layout)
    tokens = layout.prompt + layout.branches * layout.branch
    assert ideal.visible_pairs(layout) / tokens**2 < share < 1
    query = Array("bf16", (2, config.num_heads, tokens, config.head_dim))
    forward = splash_flops(layout)("splash_mha_fwd_residuals", (Array("s8", (1, 5, 3)), query))
    seen = round(share * tokens**2)
    assert forward == pytest.approx(2 * ideal.attention_flops(config, seen))
    with pytest.raises(ValueError, match="other"):
        splash_flops(layout)("other_kernel", (query,))


def test_a_grouped_matmul_counts_the_rows_that_are_in_a_group():
    """Two of eight experts here: a quarter of the rows chose one of them, if all are alike."""
    flops = with_grouped(no_kernels, 4)
    groups = Array("s32", (1,)), Array("s32", (3,))
    operands = *groups, Array("bf16", (32, 5)), Array("bf16", (2, 5, 7))
    assert flops("ragged-dot-none", operands) == 2 * 8 * 5 * 7
    assert flops("ragged-dot-metadata", groups) == 0
    with pytest.raises(ValueError, match="other"):
        flops("other_kernel", operands)


def test_lora_costs_less_than_full_and_more_than_forward(tiny_config):
    config = dataclasses.replace(tiny_config("llama"), num_layers=8)
    lora = LoraConfig(2, 4.0)
    full = ideal.step_flops(config, LAYOUT, 1, None, with_reference=True)
    adapted = ideal.step_flops(config, LAYOUT, 1, lora, with_reference=True)
    once = ideal.forward_flops(config, LAYOUT, 1, lora)
    assert full > adapted > 2 * (once.kernels + once.vocabulary)
