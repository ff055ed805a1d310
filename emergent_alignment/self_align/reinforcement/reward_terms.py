"""What training a reward model minimises: the Bradley–Terry loss of its scores' differences."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emergent_alignment.data.batches import Batch
from emergent_alignment.self_align.reinforcement.reward_model import branch_scores
from emergent_alignment.self_align.reinforcement.rl_losses import bradley_terry_loss
from emergent_alignment.training.heads import Headed
from emergent_alignment.training.objective import Objective, Share, Term
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.views import Counts


class ScoredPairs(Protocol):
    """A view of pairs: their answers' scores, and which rows have a pair."""

    chosen: Float[Array, "pairs"]
    rejected: Float[Array, "pairs"]
    mask: Bool[Array, "pairs"]


@dataclass(frozen=True)
class BradleyTerryTerm(Term):
    """The mean Bradley–Terry loss of the pairs. What is logged of them is the share that is told
    apart and, if `watches_scores`, how far apart, and the chosen answers' score."""

    watches_scores: bool = True
    name: ClassVar[str] = "task_loss"

    def share(self, part: ScoredPairs, counts: Counts) -> Share:
        """Over the pairs."""
        return _over_pairs(bradley_terry_loss(part.chosen, part.rejected), part, counts)

    def watched(self, part: ScoredPairs, counts: Counts) -> dict[str, Share]:
        """Over the pairs."""
        values = {"reward_accuracy": (part.chosen > part.rejected).astype(jnp.float32)}
        if self.watches_scores:
            values["reward_margin"] = part.chosen - part.rejected
            values["reward_chosen"] = part.chosen
        return {name: _over_pairs(value, part, counts) for name, value in values.items()}


def _over_pairs(values: Float[Array, "pairs"], part: ScoredPairs, counts: Counts) -> Share:
    return Share(jnp.where(part.mask, values, 0.0).sum(), counts["pairs"])


@dataclass(frozen=True)
class RewardView:
    """Prompts with two answers each, under the reward model."""

    settings: StepSettings
    trainable: Headed
    frozen: dict
    batch: Batch

    @staticmethod
    def counts(batch: Batch) -> Counts:
        """Of a whole batch: pairs."""
        return {"pairs": jnp.maximum(batch.pair_mask.sum().astype(jnp.float32), 1.0)}

    @cached_property
    def _scores(self) -> Float[Array, "batch branches"]:
        return branch_scores(self.settings, self.trainable, self.frozen, self.batch)

    @property
    def chosen(self) -> Float[Array, "batch"]:
        """The chosen answers' scores."""
        return self._scores[:, self.batch.roles.chosen]

    @property
    def rejected(self) -> Float[Array, "batch"]:
        """The rejected answers'."""
        return self._scores[:, self.batch.roles.rejected]

    @property
    def mask(self) -> Bool[Array, "batch"]:
        """Which rows have a pair."""
        return self.batch.pair_mask


REWARD = Objective((BradleyTerryTerm(),), RewardView)
