"""Typed batches of fixed shape: a prompt and its branches (docs/design.md §6).

Masks come from lengths, never from comparing ids with a pad id.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import jax
import numpy as np
from jaxtyping import Int

from emergent_alignment.models.attention import PrefixLayout


@dataclass(frozen=True)
class Roles:
    """Which branch of a row is what. A target that is also the rejected (or the chosen) answer
    is one branch, computed once, that serves both losses; rows without a target have pairs
    alone."""

    num_branches: int
    target: int | None = 0
    chosen: int = 0
    rejected: int = 0


ROLES = {
    "task": Roles(1),
    "separate": Roles(3, target=0, chosen=1, rejected=2),
    "target is rejected": Roles(2, target=0, chosen=1, rejected=0),
    "target is chosen": Roles(2, target=0, chosen=0, rejected=1),
    "no target": Roles(2, target=None, chosen=0, rejected=1),
}


class StepBatch(Protocol):
    """What the loop asks of a step's batch, of whatever kind: a pytree of arrays [rows, …]."""

    def row_lengths(self) -> Int[np.ndarray, "rows parts"]:
        """How many tokens each part of a row has."""

    def padding_share(self, lengths: Int[np.ndarray, "rows parts"] | None = None) -> float:
        """The share of positions that hold no token, in this batch or in all hosts' batches, whose
        `lengths` they are."""

    def branch_columns(self) -> dict[str, int]:
        """By role, the column of `row_lengths` that holds the lengths of that branch."""

    def computed_layouts(self, rows: int) -> list[tuple[PrefixLayout, int, bool]]:
        """What a step over batches like this one, with `rows` rows of all hosts, computes: each
        layout, its rows, and whether the frozen copy's log-probs need no pass of their own."""


@dataclass(frozen=True)
class Batch:
    """Training rows: prompts with their branches.

    prompt          int32[batch, P], prompt_lengths int32[batch]
    branches        int32[batch, N, R], branch_lengths int32[batch, N] (0: no such branch)
    pair_mask       bool[batch], which rows have a pair
    reference       float32[batch, 2], the frozen copy's summed log-probs of chosen and
                    rejected, or None where the step is to compute them itself
    roles           which branch is what; static
    counted         int32[batch], for how many prompts each row stands where it is asked how many
                    there were (a row may stand for such as have none); None: see `counted_rows`
    """

    prompt: np.ndarray
    prompt_lengths: np.ndarray
    branches: np.ndarray
    branch_lengths: np.ndarray
    pair_mask: np.ndarray
    reference: np.ndarray | None
    roles: Roles = ROLES["separate"]
    counted: np.ndarray | None = None

    def row_lengths(self) -> Int[np.ndarray, "rows parts"]:
        """How many tokens each row's prompt and branches have."""
        return np.concatenate([self.prompt_lengths[:, None], self.branch_lengths], axis=1)

    def padding_share(self, lengths: Int[np.ndarray, "rows parts"] | None = None) -> float:
        """See StepBatch."""
        lengths = self.row_lengths() if lengths is None else lengths
        _, branches, branch = self.branches.shape
        positions = self.prompt.shape[1] + branches * branch
        return float(1 - lengths.sum() / (len(lengths) * positions))

    def branch_columns(self) -> dict[str, int]:
        """See StepBatch."""
        names = ("target", "chosen", "rejected") if self.roles.num_branches > 1 else ("target",)
        places = {name: getattr(self.roles, name) for name in names}
        return {name: 1 + place for name, place in places.items() if place is not None}

    def computed_layouts(self, rows: int) -> list[tuple[PrefixLayout, int, bool]]:
        """See StepBatch."""
        layout = PrefixLayout(self.prompt.shape[1], *self.branches.shape[1:])
        return [(layout, rows, self.reference is not None or self.roles.num_branches == 1)]


jax.tree_util.register_dataclass(
    Batch,
    data_fields=[
        "prompt", "prompt_lengths", "branches", "branch_lengths", "pair_mask", "reference",
        "counted",
    ],
    meta_fields=["roles"],
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Chosen over rejected for one prompt, as response tokens, with the frozen copy's summed
    log-probs of both (None: not computed yet)."""

    chosen: list[int]
    rejected: list[int]
    reference: tuple[float, float] | None = None


def bucket(length: int, step: int, limit: int) -> int:
    """The smallest multiple of `step` that holds `length`, and no more than `limit`."""
    return min(-(-max(length, 1) // step) * step, limit)


def few_widths(length: int, step: int) -> int:
    """A width that holds `length`: on accelerators, where programs take long to compile, `step`
    doubled as often as it takes; on a CPU, where every token takes its time, a multiple of it."""
    if jax.default_backend() == "cpu":
        return bucket(length, step, 1 << 30)
    return step << (-(-max(length, 1) // step) - 1).bit_length()


def pad_rows(rows: list[list[int]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Token lists as int32[rows, width], padded with 0 on the right, and their lengths."""
    padded = np.zeros((len(rows), width), np.int32)
    for row, tokens in zip(padded, rows):
        row[: len(tokens)] = tokens
    return padded, np.array([len(tokens) for tokens in rows], np.int32)


def common_beginning(rows: Sequence[list[int]]) -> list[int]:
    """The longest common beginning of token lists that leaves something of each."""
    first, last = min(rows), max(rows)  # what these two share, all that lie between them share
    size = min(map(len, rows)) - 1
    parting = (i for i in range(size) if first[i] != last[i])
    return first[: next(parting, size)]


def split_beginning(rows: Iterable[list[int]]) -> tuple[list[int], list[list[int]]]:
    """`common_beginning`, and the rest of each row; no whole row but the first is ever held."""
    beginning, rests = None, []
    for row in rows:
        beginning = row[:-1] if beginning is None else beginning
        shared = len(beginning)
        if row[:shared] != beginning or len(row) == shared:
            shared = len(common_beginning([row, [*beginning, 0]]))
            rests = [beginning[shared:] + rest for rest in rests]
            beginning = beginning[:shared]
        rests.append(row[shared:])
    return beginning or [], rests


def make_batch(
    prompts: list[list[int]],
    targets: list[list[int]],
    pairs: list[Pair | None],
    *,
    prompt_width: int,
    branch_width: int,
    roles: str = "separate",
    with_reference: bool = False,
) -> Batch:
    """Rows of one step. `roles` is a name in ROLES; where the target is the rejected or the
    chosen answer it is computed once. A batch without any pair still has its branches, so that
    flags that fade do not change the compiled shape; use pairs=[] for a task-only batch. The
    batch brings reference log-probs if `with_reference`; every pair must then have its own.
    """
    shape = ROLES[roles if pairs else "task"]
    size = len(prompts)
    branches = np.zeros((size, shape.num_branches, branch_width), np.int32)
    lengths = np.zeros((size, shape.num_branches), np.int32)
    reference = np.zeros((size, 2), np.float32)
    mask = np.zeros(size, bool)
    prompt, prompt_lengths = pad_rows(prompts, prompt_width)
    for i, target in enumerate(targets):
        answers = {} if shape.target is None else {shape.target: target}
        pair = pairs[i] if pairs else None
        if pair is not None:
            answers |= {shape.chosen: pair.chosen, shape.rejected: pair.rejected}
            if shape.target is not None and answers[shape.target] != target:
                raise ValueError(f"row {i}: with roles {roles!r} the target must be that answer")
            mask[i] = True
            if with_reference:
                reference[i] = pair.reference
        for role, answer in answers.items():
            branches[i, role, : len(answer)] = answer
            lengths[i, role] = len(answer)
    reference = reference if with_reference else None
    return Batch(prompt, prompt_lengths, branches, lengths, mask, reference, shape)


def counted_rows(batch: Batch) -> Int[np.ndarray, "batch"]:
    """For how many prompts each row stands: itself alone where the batch does not say, and where
    it has no prompt, none."""
    return (batch.prompt_lengths > 0).astype(np.int32) if batch.counted is None else batch.counted


def joined_rows(first: Batch, second: Batch) -> Batch:
    """The rows of two batches with the same roles, in widths that hold both. Both bring reference
    log-probs, or neither does."""
    prompt, branch = (
        max(one.shape[-1] for one in arrays)
        for arrays in ((first.prompt, second.prompt), (first.branches, second.branches))
    )

    def widened(rows: np.ndarray, width: int) -> np.ndarray:
        return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, width - rows.shape[-1])])

    wide = [
        replace(
            one,
            prompt=widened(one.prompt, prompt),
            branches=widened(one.branches, branch),
            counted=counted_rows(one),
        )
        for one in (first, second)
    ]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *wide)


def order_seed(*words: int) -> int:
    """The seed of an order of rows, from a run's seed and what the order is of."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one pass over the data: a pure function of (seed, epoch)."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_examples)


def rows_of_step(num_examples: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Indices of the examples that step `step` trains on: a pure function of (seed, step), so
    that a resumed run needs no replay. Epochs follow each other without dropping a row."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = np.divmod(places, num_examples)
    orders = {epoch: epoch_order(num_examples, seed, int(epoch)) for epoch in np.unique(epochs)}
    return np.array([orders[epoch][offset] for epoch, offset in zip(epochs, offsets)])
