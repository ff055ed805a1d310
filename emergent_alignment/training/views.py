"""Views: what the terms of an objective read of (part of) a batch.

A view holds parameters and a batch, and computes nothing until a term reads it; what one term has
read is there for the next. Views live while a step is traced. This one is of prompts with their
branches; the windows of raw text and the rollouts of policy optimisation have views beside them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emergent_alignment.data.batches import Batch
from emergent_alignment.losses import PairLogProbs, loss_totals, pair_log_probs
from emergent_alignment.models.forward import sharded_token_kl
from emergent_alignment.training.branches import (
    answers_of_pairs,
    branch_masks,
    log_probs_from,
    predicting_hidden,
    predicting_hidden_and_loads,
    target_mask,
)
from emergent_alignment.training.state import policy_params
from emergent_alignment.training.step_settings import StepSettings

Counts = dict[str, Float[Array, ""]]


class HybridView(Protocol):
    """What the terms of the hybrid loss read: targets [rows, tokens], and perhaps pairs.

    settings          of the step
    target_log_probs  of the tokens that the task learns, where target_mask says so
    held_mask         the tokens on which a KL penalty holds the policy to the frozen copy, and
    held_kl           KL(π_θ ‖ π_θ₀) at each, in nats
    pairs             the rows that may have a chosen and a rejected answer; None: there are none
    loads             those of the experts of each layer; None: the model has none
    """

    settings: StepSettings
    target_log_probs: Float[Array, "rows tokens"]
    target_mask: Bool[Array, "rows tokens"]
    held_mask: Bool[Array, "rows tokens"]
    held_kl: Float[Array, "rows tokens"]
    pairs: "PromptView | None"
    loads: Float[Array, "layers 2 experts"] | None


@dataclass(frozen=True)
class PromptView:
    """Prompts with their branches, under the policy and under the frozen copy."""

    settings: StepSettings
    trainable: Any
    frozen: dict
    batch: Batch

    @staticmethod
    def counts(batch: Batch) -> Counts:
        """Of a whole batch: target_tokens, prompts, pairs and their chosen_tokens and
        rejected_tokens, and held_tokens (see `held_mask`)."""
        roles, masks = batch.roles, branch_masks(batch)
        rejected = masks[:, roles.rejected] & batch.pair_mask[:, None]
        tokens = {"rejected_tokens": rejected, "held_tokens": held_mask(batch)}
        return loss_totals(target_mask(batch), masks[:, roles.chosen], batch.pair_mask) | {
            name: jnp.maximum(mask.sum().astype(jnp.float32), 1.0) for name, mask in tokens.items()
        }

    @cached_property
    def params(self) -> dict:
        """The policy's."""
        return policy_params(self.trainable, self.frozen, self.settings.lora)

    @cached_property
    def hidden(self) -> Float[Array, "batch branches tokens width"]:
        """The policy's hidden states that predict each branch token."""
        return self._of_policy[0]

    @property
    def loads(self) -> Float[Array, "layers 2 experts"] | None:
        """What the policy's routers were asked for (models/experts.py)."""
        return self._of_policy[1]

    @cached_property
    def _of_policy(self):
        return predicting_hidden_and_loads(self.settings, self.params, self.batch)

    @cached_property
    def log_probs(self) -> Float[Array, "batch branches tokens"]:
        """The policy's, of every branch token."""
        return log_probs_from(self.settings, self.params, self.hidden, self.batch)

    @cached_property
    def masks(self) -> Bool[Array, "batch branches tokens"]:
        """Which branch positions hold a token."""
        return branch_masks(self.batch)

    @cached_property
    def constant(self) -> dict:
        """The frozen copy's parameters, behind a stop_gradient."""
        return jax.lax.stop_gradient(self.frozen)

    @cached_property
    def frozen_hidden(self) -> Float[Array, "batch branches tokens width"]:
        """The frozen copy's hidden states that predict each branch token."""
        return predicting_hidden(self.settings, self.constant, self.batch)

    @cached_property
    def reference(self) -> Float[Array, "batch 2"]:
        """The frozen copy's summed log-probs of chosen and rejected: the batch's, where it brings
        them."""
        if self.batch.reference is not None:
            return self.batch.reference
        of_tokens = log_probs_from(self.settings, self.constant, self.frozen_hidden, self.batch)
        return answers_of_pairs(self.batch, of_tokens)

    @property
    def target_log_probs(self) -> Float[Array, "batch tokens"]:
        """Those of the target branch."""
        return self.log_probs[:, self.batch.roles.target or 0]

    @property
    def target_mask(self) -> Bool[Array, "batch tokens"]:
        """Which tokens the task loss learns."""
        return target_mask(self.batch)

    @property
    def pairs(self) -> "PromptView | None":
        """These rows themselves, where they have branches for pairs."""
        return self if self.batch.roles.num_branches > 1 else None

    @cached_property
    def chosen_log_probs(self) -> Float[Array, "batch tokens"]:
        """Those of the chosen branch."""
        return self.log_probs[:, self.batch.roles.chosen]

    @property
    def rejected_log_probs(self) -> Float[Array, "batch tokens"]:
        """Those of the rejected branch."""
        return self.log_probs[:, self.batch.roles.rejected]

    @property
    def chosen_mask(self) -> Bool[Array, "batch tokens"]:
        """Which positions hold a token of a chosen answer; where a row has no pair it may be
        another answer's."""
        return self.masks[:, self.batch.roles.chosen]

    @property
    def rejected_mask(self) -> Bool[Array, "batch tokens"]:
        """Likewise of a rejected answer."""
        return self.masks[:, self.batch.roles.rejected]

    @cached_property
    def summed_pairs(self) -> PairLogProbs:
        """Of chosen and rejected, over the tokens of each answer."""
        return self._pair_log_probs(normalize=False)

    @cached_property
    def mean_pairs(self) -> PairLogProbs:
        """Likewise, a token."""
        return self._pair_log_probs(normalize=True)

    def _pair_log_probs(self, normalize: bool) -> PairLogProbs:
        return pair_log_probs(
            (self.chosen_log_probs, self.rejected_log_probs),
            (self.chosen_mask, self.rejected_mask),
            (self.reference[:, 0], self.reference[:, 1]),
            self.batch.pair_mask,
            normalize=normalize,
        )

    @property
    def held_mask(self) -> Bool[Array, "batch tokens"]:
        """See the function of that name."""
        return held_mask(self.batch)

    @cached_property
    def held_kl(self) -> Float[Array, "batch tokens"]:
        """KL(π_θ ‖ π_θ₀) at the tokens of `held_mask`, in nats; elsewhere it means nothing."""
        return sharded_token_kl(
            self.params,
            _held(self.batch, self.hidden),
            self.constant,
            _held(self.batch, self.frozen_hidden),
            chunk_size=self.settings.chunk_size,
            cap=self.settings.config.logits_cap,
            dtype=self.settings.dtype,
        )


def held_mask(batch: Batch) -> Bool[Array, "batch tokens"]:
    """The tokens on which a KL penalty holds the policy to the frozen copy: a row's target, or
    where it learns none, the chosen answer of its pair."""
    chosen = branch_masks(batch)[:, batch.roles.chosen] & batch.pair_mask[:, None]
    return jnp.where(_has_target(batch)[:, None], target_mask(batch), chosen)


def _held(
    batch: Batch, hidden: Float[Array, "batch branches tokens width"]
) -> Float[Array, "batch tokens width"]:
    of_target, of_chosen = hidden[:, batch.roles.target or 0], hidden[:, batch.roles.chosen]
    return jnp.where(_has_target(batch)[:, None, None], of_target, of_chosen)


def _has_target(batch: Batch) -> Bool[Array, "batch"]:
    return target_mask(batch).any(-1)
