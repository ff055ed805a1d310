"""What a step of policy optimisation minimises, over (part of) a rollout: PPO with a value head,
or GRPO. The formulas are in rl_losses.py; here they meet the model."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from emergent_alignment.data.batches import Batch
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.forward import sharded_token_log_probs_and_entropy
from emergent_alignment.self_align.reinforcement import rl_losses
from emergent_alignment.training.heads import Headed, body_params, head_values
from emergent_alignment.training.state import policy_params
from emergent_alignment.training.step import (
    Objective,
    StepSettings,
    branch_masks,
    predicting_hidden,
)


@dataclass(frozen=True)
class RolloutBatch:
    """Prompts with their sampled answers as branches, and by token what was known of them when
    they were sampled, all float32[batch, branches, tokens].

    old_log_probs  under the policy that drew them, and `reference` under the frozen copy
    advantages     what each token is worth; returns and old_values are PPO's, else zeros
    """

    rows: Batch
    old_log_probs: np.ndarray
    reference: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    old_values: np.ndarray

    def row_lengths(self) -> np.ndarray:
        """Those of the rows, as the three below."""
        return self.rows.row_lengths()

    def padding_share(self, lengths: np.ndarray | None = None) -> float:
        """See StepBatch."""
        return self.rows.padding_share(lengths)

    def branch_columns(self) -> dict[str, int]:
        """Samples have no roles."""
        return {}

    def computed_layouts(self, rows: int) -> list[tuple[PrefixLayout, int, bool]]:
        """The batch brings the frozen copy's log-probs; see StepBatch."""
        return [(layout, count, True) for layout, count, _ in self.rows.computed_layouts(rows)]


jax.tree_util.register_dataclass(RolloutBatch)


@dataclass(frozen=True)
class PolicySettings:
    """config.self_align.reinforcement.policy, as far as the loss depends on it; static."""

    clip: float = 0.2
    clip_high: float = 0.2
    value_clip: float = 0.2
    value_weight: float = 0.1
    kl_weight: float = 0.01
    entropy_weight: float = 0.0
    normalization: rl_losses.Normalization = "grpo"
    ratio: rl_losses.RatioLevel = "token"


@functools.cache
def ppo_objective(wanted: PolicySettings) -> Objective:
    """PPO: clipped policy loss + value_weight · clipped value loss − entropy_weight · entropy, each
    the mean over the batch's answer tokens. The KL to the frozen copy is in the rewards."""
    return Objective(functools.partial(_ppo_loss, wanted), _totals)


@functools.cache
def grpo_objective(wanted: PolicySettings) -> Objective:
    """GRPO: clipped policy loss under group-relative advantages, with kl_weight · k3 of the frozen
    copy, less entropy_weight times the mean entropy."""
    return Objective(functools.partial(_grpo_loss, wanted), _totals)


def _totals(batch: RolloutBatch) -> dict[str, Float[Array, ""]]:
    mask = branch_masks(batch.rows)
    return {
        "tokens": jnp.maximum(mask.sum().astype(jnp.float32), 1.0),
        "answers": jnp.maximum(mask.any(-1).sum().astype(jnp.float32), 1.0),
    }


def _ppo_loss(
    wanted: PolicySettings,
    settings: StepSettings,
    trainable: Headed,
    frozen: dict,
    batch: RolloutBatch,
    totals: dict,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    params = body_params(trainable, frozen, settings.lora)
    hidden, log_probs, entropies = answered(settings, params, batch.rows)
    values = head_values(trainable, hidden)
    mask = branch_masks(batch.rows)
    clip = {"clip": wanted.clip, "clip_high": wanted.clip_high}
    policy = rl_losses.clipped_policy_loss(log_probs, batch.old_log_probs, batch.advantages, **clip)
    value = rl_losses.clipped_value_loss(
        values, batch.old_values, batch.returns, clip=wanted.value_clip
    )
    policy_loss, value_loss, entropy = (
        _sum(part, mask) / totals["tokens"] for part in (policy, value, entropies)
    )
    loss = policy_loss + wanted.value_weight * value_loss - wanted.entropy_weight * entropy
    metrics = _metrics(wanted, batch, log_probs, mask, totals)
    metrics |= {"task_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    return loss, jax.tree.map(jax.lax.stop_gradient, metrics)


def _grpo_loss(
    wanted: PolicySettings,
    settings: StepSettings,
    trainable: dict,
    frozen: dict,
    batch: RolloutBatch,
    totals: dict,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    params = policy_params(trainable, frozen, settings.lora)
    _, log_probs, entropies = answered(settings, params, batch.rows)
    mask = branch_masks(batch.rows)
    width = mask.shape[-1]
    flat, old, reference, advantages, kept = (
        x.reshape(-1, width)
        for x in (log_probs, batch.old_log_probs, batch.reference, batch.advantages, mask)
    )
    tokens = rl_losses.grpo_token_loss(
        flat,
        old,
        reference,
        advantages[:, 0],  # an answer's one advantage stands on all its tokens
        kept,
        ratio=wanted.ratio,
        clip=wanted.clip,
        clip_high=wanted.clip_high,
        kl_weight=wanted.kl_weight,
    )
    policy_loss = rl_losses.normalized_sum(
        tokens,
        kept,
        kind=wanted.normalization,
        num_rows=totals["answers"],
        num_tokens=totals["tokens"],
        longest=width,
    )
    entropy = _sum(entropies, mask) / totals["tokens"]
    metrics = _metrics(wanted, batch, log_probs, mask, totals)
    metrics |= {"task_loss": policy_loss, "entropy": entropy}
    loss = policy_loss - wanted.entropy_weight * entropy
    return loss, jax.tree.map(jax.lax.stop_gradient, metrics)


def answered(
    settings: StepSettings, params: dict, rows: Batch
) -> tuple[
    Float[Array, "batch branches tokens width"],
    Float[Array, "batch branches tokens"],
    Float[Array, "batch branches tokens"],
]:
    """(the hidden states that predict each answer token, the tokens' log-probs, the entropies of
    what they were drawn from)."""
    hidden = predicting_hidden(settings, params, rows)
    size, branches, length = rows.branches.shape
    by_token = sharded_token_log_probs_and_entropy(
        params,
        hidden.reshape(size, branches * length, -1),
        rows.branches.reshape(size, -1),
        chunk_size=settings.chunk_size,
        dtype=settings.dtype,
    ).reshape(size, branches, length, 2)
    return hidden, by_token[..., 0], by_token[..., 1]


def _metrics(wanted, batch, log_probs, mask, totals) -> dict[str, Float[Array, ""]]:
    """Nats a token of KL from the frozen copy and from the policy that drew the answers (k3), and
    the share of tokens at which the clip is what counts."""
    clipped = rl_losses.clipped_share(
        log_probs,
        batch.old_log_probs,
        batch.advantages,
        clip=wanted.clip,
        clip_high=wanted.clip_high,
    )
    return {
        name: _sum(part, mask) / totals["tokens"]
        for name, part in (
            ("kl", rl_losses.kl_estimate(log_probs, batch.reference)),
            ("kl_old", rl_losses.kl_estimate(log_probs, batch.old_log_probs)),
            ("clip_share", clipped.astype(jnp.float32)),
        )
    }


def _sum(
    values: Float[Array, "batch branches tokens"], mask: Bool[Array, "batch branches tokens"]
) -> Float[Array, ""]:
    return jnp.where(mask, values, 0.0).sum()
