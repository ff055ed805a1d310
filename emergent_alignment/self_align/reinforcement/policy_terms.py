"""What a step of policy optimisation minimises, over (part of) a rollout: the terms of PPO with a
value head, and of GRPO. The formulas are in rl_losses.py; here they meet the model."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from emergent_alignment.data.batches import Batch
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.forward import sharded_token_log_probs_and_entropy
from emergent_alignment.self_align.reinforcement import rl_losses
from emergent_alignment.training.branches import branch_masks, predicting_hidden
from emergent_alignment.training.heads import Headed, body_params, head_values
from emergent_alignment.training.objective import Share, Term
from emergent_alignment.training.state import policy_params
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.views import Counts


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
class RolloutView:
    """A rollout's answers under the policy, and, where the policy has a head, their values."""

    settings: StepSettings
    trainable: Any
    frozen: dict
    batch: RolloutBatch

    @staticmethod
    def counts(batch: RolloutBatch) -> Counts:
        """Of a whole batch: answers, and their tokens."""
        mask = branch_masks(batch.rows)
        return {
            "tokens": jnp.maximum(mask.sum().astype(jnp.float32), 1.0),
            "answers": jnp.maximum(mask.any(-1).sum().astype(jnp.float32), 1.0),
        }

    @cached_property
    def params(self) -> dict:
        """The policy's."""
        if isinstance(self.trainable, Headed):
            return body_params(self.trainable, self.frozen, self.settings.lora)
        return policy_params(self.trainable, self.frozen, self.settings.lora)

    @cached_property
    def hidden(self) -> Float[Array, "batch branches tokens width"]:
        """The policy's hidden states that predict each answer token."""
        return predicting_hidden(self.settings, self.params, self.batch.rows)

    @cached_property
    def _measured(self) -> Float[Array, "batch branches tokens 2"]:
        return log_probs_and_entropies(self.settings, self.params, self.hidden, self.batch.rows)

    @property
    def log_probs(self) -> Float[Array, "batch branches tokens"]:
        """The policy's, of every answer token."""
        return self._measured[..., 0]

    @property
    def entropies(self) -> Float[Array, "batch branches tokens"]:
        """Of what every answer token was drawn from."""
        return self._measured[..., 1]

    @cached_property
    def values(self) -> Float[Array, "batch branches tokens"]:
        """The head's, before each answer token."""
        return head_values(self.trainable, self.hidden)

    @cached_property
    def mask(self) -> Bool[Array, "batch branches tokens"]:
        """Which positions hold an answer's token."""
        return branch_masks(self.batch.rows)

    def over_tokens(self, values: Float[Array, "batch branches tokens"], counts: Counts) -> Share:
        """The mean over the batch's answer tokens."""
        return Share(jnp.where(self.mask, values, 0.0).sum(), counts["tokens"])


@dataclass(frozen=True)
class PolicyTerm(Term):
    """What PPO's and GRPO's policy losses share: `clip` ε and `clip_high` ε′, how far down and up
    the ratio to the rollout's policy counts."""

    clip: float = 0.2
    clip_high: float = 0.2
    name: ClassVar[str] = "task_loss"

    def watched(self, part: RolloutView, counts: Counts) -> dict[str, Share]:
        """Nats a token of KL from the frozen copy and from the policy that drew the answers (k3),
        and the share of tokens at which the clip is what counts."""
        batch = part.batch
        clipped = rl_losses.clipped_share(
            part.log_probs,
            batch.old_log_probs,
            batch.advantages,
            clip=self.clip,
            clip_high=self.clip_high,
        )
        watched = {
            "kl": rl_losses.kl_estimate(part.log_probs, batch.reference),
            "kl_old": rl_losses.kl_estimate(part.log_probs, batch.old_log_probs),
            "clip_share": clipped.astype(jnp.float32),
        }
        return {name: part.over_tokens(values, counts) for name, values in watched.items()}


@dataclass(frozen=True)
class PPOTerm(PolicyTerm):
    """PPO's clipped policy loss, a token. The KL to the frozen copy is in the rewards."""

    def share(self, part: RolloutView, counts: Counts) -> Share:
        """Over the answers' tokens."""
        batch = part.batch
        losses = rl_losses.clipped_policy_loss(
            part.log_probs,
            batch.old_log_probs,
            batch.advantages,
            clip=self.clip,
            clip_high=self.clip_high,
        )
        return part.over_tokens(losses, counts)


@dataclass(frozen=True)
class ValueTerm(Term):
    """PPO's value loss, a token; a value counts no further than `clip` from the rollout's."""

    weight: float = 0.1
    clip: float = 0.2
    name: ClassVar[str] = "value_loss"

    def share(self, part: RolloutView, counts: Counts) -> Share:
        """Over the answers' tokens."""
        losses = rl_losses.clipped_value_loss(
            part.values, part.batch.old_values, part.batch.returns, clip=self.clip
        )
        return part.over_tokens(losses, counts)


@dataclass(frozen=True)
class EntropyTerm(Term):
    """A bonus for entropy, a token."""

    weight: float = 0.0
    name: ClassVar[str] = "entropy"
    is_bonus: ClassVar[bool] = True

    def share(self, part: RolloutView, counts: Counts) -> Share:
        """Over the answers' tokens."""
        return part.over_tokens(part.entropies, counts)


@dataclass(frozen=True)
class GRPOTerm(PolicyTerm):
    """GRPO's clipped policy loss under group-relative advantages; a token's loss has `kl_weight`
    times k3 of the frozen copy in it. `normalization` says how tokens are added up, `ratio` which
    one is clipped."""

    kl_weight: float = 0.01
    normalization: rl_losses.Normalization = "grpo"
    ratio: rl_losses.RatioLevel = "token"

    def share(self, part: RolloutView, counts: Counts) -> Share:
        """As its normalisation says."""
        batch, width = part.batch, part.mask.shape[-1]
        log_probs, old, reference, advantages, mask = (
            x.reshape(-1, width)
            for x in (
                part.log_probs, batch.old_log_probs, batch.reference, batch.advantages, part.mask
            )
        )  # fmt: skip
        # An answer's one advantage stands on all its tokens.
        answers = rl_losses.Answers(log_probs, old, reference, advantages[:, 0], mask)
        losses = rl_losses.grpo_token_loss(
            answers,
            ratio=self.ratio,
            clip=self.clip,
            clip_high=self.clip_high,
            kl_weight=self.kl_weight,
        )
        total, count = rl_losses.normalized_parts(
            losses,
            mask,
            kind=self.normalization,
            num_rows=counts["answers"],
            num_tokens=counts["tokens"],
            longest=width,
        )
        return Share(total, count)


def log_probs_and_entropies(
    settings: StepSettings,
    params: dict,
    hidden: Float[Array, "batch branches tokens width"],
    rows: Batch,
) -> Float[Array, "batch branches tokens 2"]:
    """float32 log-probs of every answer token, and the entropies of what they were drawn from,
    from the hidden states that predict them."""
    size, branches, length = rows.branches.shape
    return sharded_token_log_probs_and_entropy(
        params,
        hidden.reshape(size, branches * length, -1),
        rows.branches.reshape(size, -1),
        chunk_size=settings.chunk_size,
        cap=settings.config.logits_cap,
        dtype=settings.dtype,
    ).reshape(size, branches, length, 2)
