"""Our reinforcement losses are TRL's and rlax's, gradients included.

The numbers come from make_reinforcement_losses.py beside this file, which computes in float64.
Tolerance: 1e-5, absolute up to 1 and relative beyond.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emergent_alignment.losses import token_log_probs_and_entropy
from emergent_alignment.self_align.reinforcement import rl_losses

GOLDEN = json.loads(Path(__file__).with_name("reinforcement_losses.json").read_text("utf-8"))
ROLLOUT = {name: jnp.array(values, jnp.float32) for name, values in GOLDEN["rollout"].items()}
MASK = jnp.arange(ROLLOUT["values"].shape[1]) < ROLLOUT["lengths"][:, None]


def assert_close(ours, theirs, what: str) -> None:
    theirs = np.asarray(theirs)
    difference = np.abs(np.asarray(ours) - theirs) / np.maximum(1.0, np.abs(theirs))
    assert difference.max() <= 1e-5, f"{what}: differs by {difference.max()}"


def mean(values):
    return rl_losses.masked_mean(values, MASK)


@pytest.mark.parametrize("case", GOLDEN["ppo"], ids=lambda c: f"{c['discount']}-{c['clip']}")
def test_rewards_advantages_and_losses_of_ppo_are_those_of_trl(case: dict) -> None:
    x = ROLLOUT
    rewards = rl_losses.shaped_rewards(
        x["scores"], x["old_log_probs"], x["reference"], MASK, kl_weight=case["kl_weight"]
    )
    assert_close(rewards, case["rewards"], "rewards")
    whitened = rl_losses.masked_whiten(rewards, MASK, shift_mean=False)
    assert_close(whitened, case["whitened_rewards"], "whitened rewards")
    advantages, returns = rl_losses.generalized_advantages(
        rewards, x["old_values"], MASK, discount=case["discount"], decay=case["decay"]
    )
    assert_close(returns, case["returns"], "returns")
    advantages = rl_losses.masked_whiten(advantages, MASK)
    assert_close(advantages, case["advantages"], "advantages")
    clip = {"clip": case["clip"]}

    def policy(log_probs):
        return mean(
            rl_losses.clipped_policy_loss(log_probs, x["old_log_probs"], advantages, **clip)
        )

    def value(values):
        return mean(rl_losses.clipped_value_loss(values, x["old_values"], returns, **clip))

    for name, loss, at in (("policy", policy, x["log_probs"]), ("value", value, x["values"])):
        found, gradient = jax.value_and_grad(loss)(at)
        assert_close(found, case[f"{name}_loss"], f"{name} loss")
        assert_close(gradient, case[f"{name}_gradient"], f"gradient of the {name} loss")
    clipped = rl_losses.clipped_share(x["log_probs"], x["old_log_probs"], advantages, **clip)
    assert_close(mean(clipped.astype(jnp.float32)), case["clip_share"], "clip share")
    assert_close(mean(rl_losses.entropy(x["logits"])), case["entropy"], "entropy")
    k2 = rl_losses.kl_estimate(x["log_probs"], x["old_log_probs"], kind="k2")
    assert_close(mean(k2), case["k2"], "k2")
    explained = rl_losses.explained_variance(x["old_values"], returns, MASK)
    assert_close(explained, case["explained_variance"], "explained variance")


@pytest.mark.parametrize("case", GOLDEN["rlax"]["cases"], ids=lambda c: str(c["discount"]))
def test_advantages_and_the_clipped_loss_are_those_of_rlax(case: dict) -> None:
    row = GOLDEN["rlax"]["row"]
    log_probs, old, values = (
        ROLLOUT[name][row : row + 1] for name in ("log_probs", "old_log_probs", "old_values")
    )
    advantages, _ = rl_losses.generalized_advantages(
        jnp.array([GOLDEN["rlax"]["rewards"]]),
        values,
        MASK[row : row + 1],
        discount=case["discount"],
        decay=case["decay"],
    )
    assert_close(advantages[0], case["advantages"], "advantages")
    loss = rl_losses.clipped_policy_loss(log_probs, old, advantages).mean()
    assert_close(loss, case["policy_loss"], "policy loss")


def grpo_name(case: dict) -> str:
    return f"{case['normalization']}-{case['level']}-{case['kl_weight']}"


@pytest.mark.parametrize("case", GOLDEN["grpo"], ids=grpo_name)
def test_grpo_and_its_relatives_are_those_of_trl(case: dict) -> None:
    x = ROLLOUT
    advantages = jnp.array(GOLDEN["group_advantages"]["group"]).reshape(-1)
    clip = {"clip": case["clip"], "clip_high": case["clip_high"]}

    def loss(log_probs):
        answers = rl_losses.Answers(log_probs, x["old_log_probs"], x["reference"], advantages, MASK)
        tokens = rl_losses.grpo_token_loss(
            answers, ratio=case["level"], kl_weight=case["kl_weight"], **clip
        )
        total, count = rl_losses.normalized_parts(
            tokens,
            MASK,
            kind=case["normalization"],
            num_rows=float(MASK.shape[0]),
            num_tokens=MASK.sum().astype(jnp.float32),
            longest=MASK.shape[1],
        )
        return total / count

    found, gradient = jax.value_and_grad(loss)(x["log_probs"])
    assert_close(found, case["loss"], "loss")
    assert_close(gradient, case["gradient"], "gradient")
    if case["kl"] is not None:
        k3 = rl_losses.kl_estimate(x["log_probs"], x["reference"], kind="k3")
        assert_close(mean(k3), case["kl"], "k3")
    if case["clip_share"] is not None:
        clipped = rl_losses.clipped_share(
            x["log_probs"], x["old_log_probs"], advantages[:, None], **clip
        )
        assert_close(mean(clipped.astype(jnp.float32)), case["clip_share"], "clip share")


@pytest.mark.parametrize("scale", ["group", "none"])
def test_group_advantages_are_those_of_trl(scale: str) -> None:
    ours = rl_losses.group_advantages(ROLLOUT["scores"].reshape(-1, 3), scale=scale)
    assert_close(ours, GOLDEN["group_advantages"][scale], scale)


def test_the_bradley_terry_loss_is_that_of_trl() -> None:
    chosen, rejected = jnp.array(GOLDEN["bradley_terry"]["pairs"], jnp.float32).T
    ours = rl_losses.bradley_terry_loss(chosen, rejected)
    assert_close(ours, GOLDEN["bradley_terry"]["losses"], "losses")


def test_entropy_in_chunks_is_that_of_the_logits() -> None:
    draw = np.random.default_rng(0)
    hidden = jnp.array(draw.standard_normal((2, 5, 4)), jnp.float32)
    matrix = jnp.array(draw.standard_normal((4, 9)), jnp.float32)
    targets = jnp.array(draw.integers(0, 9, (2, 5)), jnp.int32)
    logits = hidden @ matrix
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    expected = jnp.stack([picked, rl_losses.entropy(logits)], axis=-1)
    for chunk in (None, 3):
        ours = token_log_probs_and_entropy(hidden, matrix, targets, chunk_size=chunk)
        assert_close(ours, expected, f"chunks of {chunk}")
