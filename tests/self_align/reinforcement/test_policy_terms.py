"""PPO's and GRPO's terms are what their formulas say, and add up over microbatches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_batches import assert_trees_close, random_batch

from emergent_alignment.data.batches import ROLES
from emergent_alignment.models.lora import LoraConfig, init_adapters
from emergent_alignment.self_align.reinforcement import rl_losses
from emergent_alignment.self_align.reinforcement.policy_terms import (
    EntropyTerm,
    GRPOTerm,
    PPOTerm,
    RolloutBatch,
    RolloutView,
    ValueTerm,
)
from emergent_alignment.training.heads import Headed
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.step import loss_and_gradients
from emergent_alignment.training.step_settings import StepSettings

PPO = Objective((PPOTerm(clip_high=0.3), ValueTerm(0.5), EntropyTerm(0.1)), RolloutView)
GRPO = Objective((GRPOTerm(kl_weight=0.2), EntropyTerm(0.1)), RolloutView)
compute = jax.jit(loss_and_gradients, static_argnums=(0, 4))


@pytest.fixture(scope="module")
def settings(tiny_config):
    return StepSettings(tiny_config("llama"), LoraConfig(4, 8.0), chunk_size=16)


@pytest.fixture(scope="module")
def frozen(settings, tiny_params):
    return tiny_params(settings.config)


@pytest.fixture(scope="module")
def policy(settings, frozen):
    draw = np.random.default_rng(0)
    fresh = init_adapters(frozen, settings.lora, jax.random.key(1))
    adapters = jax.tree.map(lambda x: x + 0.05 * draw.standard_normal(x.shape, np.float32), fresh)
    return Headed(adapters, jnp.array(draw.standard_normal(32), jnp.float32), jnp.float32(0.1))


@pytest.fixture(scope="module")
def batch(settings, frozen, policy):
    """Answers whose log-probs have moved a little since they were drawn."""
    rows = dataclasses.replace(random_batch(branches=2), roles=ROLES["no target"])
    draw = np.random.default_rng(1)
    nothing = jnp.zeros(rows.branches.shape)
    now = RolloutView(settings, policy, frozen, RolloutBatch(rows, *[nothing] * 5)).log_probs

    def near(center, spread):
        return center + jnp.array(spread * draw.standard_normal(nothing.shape), jnp.float32)

    advantages = jnp.broadcast_to(near(nothing, 1.0)[..., :1], nothing.shape)
    return RolloutBatch(
        rows, near(now, 0.2), near(now, 0.5), advantages, near(nothing, 1.0), near(nothing, 1.0)
    )


def test_ppo_is_policy_plus_value_loss_less_entropy(settings, frozen, policy, batch):
    _, metrics = compute(settings, policy, frozen, batch, PPO)
    view = RolloutView(settings, policy, frozen, batch)
    clipped = rl_losses.clipped_policy_loss(
        view.log_probs, batch.old_log_probs, batch.advantages, clip=0.2, clip_high=0.3
    )
    values = rl_losses.clipped_value_loss(view.values, batch.old_values, batch.returns, clip=0.2)
    parts = {"task_loss": clipped, "value_loss": values, "entropy": view.entropies}
    parts["kl"] = rl_losses.kl_estimate(view.log_probs, batch.reference)
    for name, values in parts.items():
        expected = rl_losses.masked_mean(values, view.mask)
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-4, err_msg=name)
    expected = metrics["task_loss"] + 0.5 * metrics["value_loss"] - 0.1 * metrics["entropy"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert {"kl_old", "clip_share"} < set(metrics)


@pytest.mark.parametrize("objective", [PPO, GRPO], ids=["ppo", "grpo"])
def test_parts_add_up_to_the_whole(settings, frozen, policy, batch, objective):
    trainable = policy if objective is PPO else policy.body
    whole = compute(settings, trainable, frozen, batch, objective)
    parts = dataclasses.replace(settings, accumulation=4)
    assert_trees_close(compute(parts, trainable, frozen, batch, objective), whole, 1e-5)


def test_the_weight_of_a_bonus_may_be_given(settings, frozen, policy, batch):
    given = {"entropy": 0.7, "value_loss": 0.0}
    _, metrics = compute(settings, policy, frozen, batch, PPO, given)
    expected = metrics["task_loss"] - 0.7 * metrics["entropy"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
