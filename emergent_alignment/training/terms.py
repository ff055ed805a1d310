"""The terms of the hybrid loss (docs/design.md §3): task, preference, chosen answers, KL.

They read a HybridView (views.py). PPO's and GRPO's terms and the reward model's stand beside their
views in self_align/reinforcement/.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emergent_alignment.losses import (
    PairLogProbs,
    PreferenceKind,
    alignment_sum,
    nll_sum,
    reward_sums,
)
from emergent_alignment.models.experts import load_balance
from emergent_alignment.training.objective import Objective, Share, Term
from emergent_alignment.training.views import Counts, HybridView, PromptView


@dataclass(frozen=True)
class TaskTerm(Term):
    """Σ NLL of the target tokens / their number."""

    name: ClassVar[str] = "task_loss"

    def share(self, part: HybridView, counts: Counts) -> Share:
        """Over the target tokens."""
        total = nll_sum(part.target_log_probs, part.target_mask)
        return Share(total, _at_least_one(counts["target_tokens"]))


@dataclass(frozen=True)
class PreferenceTerm(Term):
    """λ (1/B) Σ f over the rows that have a pair, B the number of prompts; f is the preference
    loss of this kind (losses.PREFERENCE_LOSSES). To `normalize`, log-probs are a token's mean."""

    weight: float = 1.0
    kind: PreferenceKind = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    normalize: bool = False
    name: ClassVar[str] = "alignment_loss"
    aligns: ClassVar[bool] = True

    def part_of(self, view: HybridView) -> PromptView | None:
        """The pairs."""
        return view.pairs

    def share(self, part: PromptView, counts: Counts) -> Share:
        """Over the prompts that were listened to, with or without a pair."""
        return Share(self._sum(self._pairs(part)), counts["prompts"])

    def watched(self, part: PromptView, counts: Counts) -> dict[str, Share]:
        """Implicit rewards and log-probs, a pair; `kl`, a token of the rejected answers."""
        rewards = reward_sums(self._pairs(part), beta=self.beta)
        watched = rewards | {"pair_strength": self._strength(part, counts)}
        pairs = _at_least_one(counts["pairs"])
        shares = {name: Share(total, pairs) for name, total in watched.items()}
        return shares | {"kl": Share(_kl_of_rejected(part), counts["rejected_tokens"])}

    def _strength(self, part: PromptView, counts: Counts) -> Float[Array, ""]:
        """Σ over pairs of a chosen token's weight in this term, before λ, over that of a target's
        token in the task's: λ times their mean says which of both moves the model."""
        pairs = self._pairs(part)

        def total(chosen):
            moved = dataclasses.replace(pairs, policy=(chosen, pairs.policy[1]))
            return self._sum(moved)

        of_answers = jnp.abs(jax.grad(total)(pairs.policy[0]))
        if self.normalize:
            of_answers = of_answers / _at_least_one(part.chosen_mask.sum(-1))
        relative = of_answers * counts["target_tokens"] / counts["prompts"]
        return jnp.where(pairs.mask, relative, 0.0).sum()

    def _sum(self, pairs: PairLogProbs) -> Float[Array, ""]:
        return alignment_sum(
            pairs, kind=self.kind, beta=self.beta, label_smoothing=self.label_smoothing
        )

    def _pairs(self, part: PromptView) -> PairLogProbs:
        return part.mean_pairs if self.normalize else part.summed_pairs


@dataclass(frozen=True)
class ChosenNLLTerm(Term):
    """α times the mean NLL of the pairs' chosen answers, a token."""

    weight: float = 0.0
    name: ClassVar[str] = "chosen_nll"
    aligns: ClassVar[bool] = True

    def part_of(self, view: HybridView) -> PromptView | None:
        """The pairs."""
        return view.pairs

    def share(self, part: PromptView, counts: Counts) -> Share:
        """Over the chosen answers' tokens."""
        mask = part.chosen_mask & part.batch.pair_mask[:, None]
        total = nll_sum(part.chosen_log_probs, mask)
        return Share(total, _at_least_one(counts["chosen_tokens"]))


@dataclass(frozen=True)
class KLTerm(Term):
    """The exact KL(π_θ ‖ π_θ₀) from the frozen copy, the mean over the held tokens: a row's target
    or, where it learns none, the chosen answer of its pair; of raw text every token that is
    predicted. `beside` the task it holds the rows that have pairs alone."""

    weight: float = 0.0
    beside: bool = False
    name: ClassVar[str] = "kl_target"
    own_pass: ClassVar[bool] = True

    def part_of(self, view: HybridView) -> HybridView | PromptView | None:
        """The rows whose tokens are held."""
        return view.pairs if self.beside else view

    def share(self, part: HybridView, counts: Counts) -> Share:
        """Over the held tokens."""
        total = jnp.where(part.held_mask, part.held_kl, 0.0).sum()
        return Share(total, counts["held_tokens_beside" if self.beside else "held_tokens"])


@dataclass(frozen=True)
class LoadBalanceTerm(Term):
    """How unevenly the routers of a mixture load its experts (models/experts.py), over all true
    tokens of a batch; of several microbatches the mean of theirs. With weight 0 it is logged."""

    weight: float = 0.0
    name: ClassVar[str] = "load_balance"

    def part_of(self, view: HybridView) -> HybridView | None:
        """The view, of a model with experts."""
        return view if view.settings.config.num_experts else None

    def share(self, part: HybridView, counts: Counts) -> Share:
        """Over the microbatches."""
        return Share(load_balance(_loads(part)), jnp.float32(part.settings.accumulation))

    def watched(self, part: HybridView, counts: Counts) -> dict[str, Share]:
        """router_max_load: the tokens of the most loaded expert of any layer over an even share;
        router_unused: the share of experts that no token chose."""
        choices = _loads(part)[:, 0]
        most = choices.max() / jnp.maximum(choices.mean(), 1e-9)
        parts = jnp.float32(part.settings.accumulation)
        watched = {"router_max_load": most, "router_unused": (choices == 0).mean()}
        return {name: Share(value, parts) for name, value in watched.items()}


HYBRID = Objective((TaskTerm(), PreferenceTerm(), ChosenNLLTerm(), LoadBalanceTerm(), KLTerm()))


def _loads(part: HybridView) -> Float[Array, "layers 2 experts"]:
    assert part.loads is not None  # LoadBalanceTerm.part_of
    return part.loads


def _kl_of_rejected(part: PromptView) -> Float[Array, ""]:
    """Σ log π_θ − log π_θ₀ over the pairs' rejected answers: k1 of KL(π_θ ‖ π_θ₀), exact in
    expectation on the policy's own samples."""
    of_policy = (part.rejected_log_probs * part.rejected_mask).sum(-1)
    return jnp.where(part.batch.pair_mask, of_policy - part.reference[:, 1], 0.0).sum()


def _at_least_one(count: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.maximum(count, 1.0)
