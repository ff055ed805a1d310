"""A step's task rows, and beside them rows that have pairs alone: prompts of another source, or
of former steps, each kind in a shape of its own."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from emergent_alignment.data.batches import Batch, counted_rows
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.views import Counts, PromptView


@dataclass(frozen=True)
class TaskAndPairs:
    """The rows that the task learns (roles `task`), and the prompts that have pairs alone: those
    that were listened to, and those of pairs that were given (roles `no target`). How many
    prompts were listened to, `counted_rows` of `heard` say."""

    task: Batch
    heard: Batch

    def row_lengths(self) -> Int[np.ndarray, "rows parts"]:
        """Those of the task's rows; see StepBatch."""
        return self.task.row_lengths()

    def padding_share(self, lengths: Int[np.ndarray, "rows parts"] | None = None) -> float:
        """That of the task's rows; see StepBatch."""
        return self.task.padding_share(lengths)

    def branch_columns(self) -> dict[str, int]:
        """See StepBatch."""
        return self.task.branch_columns()

    def computed_layouts(self, rows: int) -> list[tuple[PrefixLayout, int, bool]]:
        """See StepBatch."""
        heard = rows * len(self.heard.prompt) // len(self.task.prompt)
        return self.task.computed_layouts(rows) + self.heard.computed_layouts(heard)


jax.tree_util.register_dataclass(TaskAndPairs)


@dataclass(frozen=True)
class TaskAndPairsView:
    """Both kinds of rows under the policy and under the frozen copy (a HybridView, views.py)."""

    settings: StepSettings
    trainable: Any
    frozen: dict
    batch: TaskAndPairs

    @staticmethod
    def counts(batch: TaskAndPairs) -> Counts:
        """Of a whole batch: the task's targets, and the pairs of what was listened to."""
        task, heard = PromptView.counts(batch.task), PromptView.counts(batch.heard)
        return heard_counts(heard, batch.heard) | {
            "target_tokens": task["target_tokens"],
            "held_tokens": task["held_tokens"],
            "held_tokens_beside": heard["held_tokens"],
        }

    @cached_property
    def task(self) -> PromptView:
        """The task's rows."""
        return PromptView(self.settings, self.trainable, self.frozen, self.batch.task)

    @cached_property
    def pairs(self) -> PromptView:
        """The rows that were listened to."""
        return PromptView(self.settings, self.trainable, self.frozen, self.batch.heard)

    @property
    def target_log_probs(self) -> Float[Array, "rows tokens"]:
        """See HybridView; so are those that follow."""
        return self.task.target_log_probs

    @property
    def target_mask(self) -> Bool[Array, "rows tokens"]:
        return self.task.target_mask

    @property
    def held_mask(self) -> Bool[Array, "rows tokens"]:
        return self.task.held_mask

    @property
    def held_kl(self) -> Float[Array, "rows tokens"]:
        return self.task.held_kl

    @property
    def loads(self) -> Float[Array, "layers 2 experts"] | None:
        return added_loads(self.task.loads, self.pairs.loads)


class PairsView(PromptView):
    """Rows that have pairs alone, where there is no task; see TaskAndPairs."""

    @staticmethod
    def counts(batch: Batch) -> Counts:
        """Of a whole batch."""
        return heard_counts(PromptView.counts(batch), batch)


def added_loads(one: Array | None, other: Array | None) -> Array | None:
    """Those of the experts over two kinds of rows."""
    return one if other is None else other if one is None else one + other


def heard_counts(counts: Counts, heard: Batch) -> Counts:
    """The counts of rows that were listened to, with all the prompts that they stand for."""
    present = counted_rows(heard).sum().astype(jnp.float32)
    return counts | {"prompts": jnp.maximum(present, 1.0)}
