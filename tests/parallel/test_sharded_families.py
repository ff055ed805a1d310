"""Experts, sinks, norms over all heads, and layers of several kinds compute on a mesh what they
compute on one device: loss and gradients of parameters and adapters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emergent_alignment.losses import vocabulary_logits
from emergent_alignment.models.architecture import QueryGrowth
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import forward, unembedding
from emergent_alignment.models.lora import LoraConfig, attach, init_adapters
from emergent_alignment.models.model import random_params
from emergent_alignment.models.placement import check_mesh, shardings_of
from emergent_alignment.models.prefix_attention import prefix_plan
from emergent_alignment.parallel.mesh import in_force, make_mesh

SIZES = ("qwen3_moe", 96, 32, 48, 3, 4, 2, 8)
MIXED = {"layer_windows": (4, None, 4), "attention_cap": 2.0, "logits_cap": 3.0}
EXPERTS = {"num_experts": 4, "experts_per_token": 2, "expert_size": 16}
CLAMPED = {"qkv_bias": True, "output_bias": True, "normalised_experts": True, "gate_limit": 1.0}
CONFIGS = {
    "qwen3_moe": ModelConfig(*SIZES, **MIXED, **EXPERTS, qk_norm=True),
    "gpt_oss": ModelConfig("gpt_oss", *SIZES[1:], **MIXED, **EXPERTS, **CLAMPED),
    "olmo3": ModelConfig(
        "olmo3", *SIZES[1:], **MIXED, qk_norm=True, query_growth=QueryGrowth(0.1, 4)
    ),
}
# Adapters of a larger scale drive attention into its corners, where rounding alone is seen.
LORA = LoraConfig(rank=2, alpha=3.0, targets=("query", "down", "expert_gate", "expert_down"))


@pytest.mark.parametrize("family", CONFIGS)
def test_a_mesh_changes_neither_loss_nor_gradients(family):
    config, layout = CONFIGS[family], PrefixLayout(6, 2, 5)
    draw = np.random.default_rng(0)
    tokens = jnp.asarray(draw.integers(0, 96, (8, 16)))
    lengths = jnp.asarray(draw.integers(1, 7, 8))
    params = random_params(config)
    trained = params, init_adapters(params, LORA, jax.random.key(0))
    trained = jax.tree.map(
        lambda x: jnp.asarray(x + 0.2 * draw.standard_normal(x.shape), jnp.float32), trained
    )

    def loss(trained, tokens, lengths):
        params, adapters = trained
        positions, plan = layout.positions(lengths), prefix_plan(layout, lengths, "blocks")
        hidden, _ = forward(config, attach(params, adapters, LORA), tokens, positions, plan)
        logits = vocabulary_logits(hidden, unembedding(params), config.logits_cap)
        true = jnp.arange(16) >= 6
        return jnp.where(true[:, None], jax.nn.log_softmax(logits) ** 2, 0.0).mean()

    gradients = jax.value_and_grad(loss)
    wanted = jax.jit(gradients)(trained, tokens, lengths)
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    check_mesh(mesh, config)
    with in_force(mesh):
        placed = tuple(jax.device_put(tree, shardings_of(mesh, tree)) for tree in trained)
        found = jax.jit(gradients)(placed, tokens, lengths)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        scale = max(1.0, float(jnp.abs(theirs).max()))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * scale)
