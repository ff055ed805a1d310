"""Log-probs of all options of every row, in batches: the prompt is read once, and each option is
a branch on top of it."""

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby

import numpy as np
from jaxtyping import Float

from emergent_alignment.evaluation.choices.rows import Asked
from emergent_alignment.evaluation.judge_free import TokenLimits, response_log_probs
from emergent_alignment.models.model import Model

BRANCH_STEP = 2  # rows are computed with the next multiple of so many branches, …
OPTION_STEP = 8  # … of the next multiple of so many tokens: options are short


def competing_log_probs(
    model: Model,
    rows: Iterable[Asked],
    *,
    batch_size: int,
    bucket_tokens: int,
    known: Collection[tuple[str, int]] = (),
) -> Iterator[tuple[Asked, Float[np.ndarray, "options"]]]:
    """Every row with log P(option | prompt) of each of its options, nats, summed over tokens; but
    for those whose (name, order) is `known`, which change no number of the others.

    Nothing is cut: an option that lost its end, or a prompt its start, would be another one.
    Rows come batch by batch, like ones together. `rows` may be a generator: it is read once.
    """
    ordered = sorted(rows, key=lambda row: (_branches(row), len(row.prompt)))
    limits = TokenLimits(0, 0, bucket_tokens, batch_size, response_bucket=OPTION_STEP)
    for branches, alike in groupby(ordered, _branches):
        alike = list(alike)
        for start in range(0, len(alike), batch_size):
            batch = alike[start : start + batch_size]
            if all(place(row) in known for row in batch):
                continue
            padded = [row.options + [[]] * (branches - len(row.options)) for row in batch]
            prompts = [row.prompt for row in batch]
            by_row = response_log_probs(model, model.policy, prompts, padded, limits)
            for row, log_probs in zip(batch, by_row):
                if place(row) not in known:
                    yield row, log_probs[: len(row.options)]


def place(row: Asked) -> tuple[str, int]:
    """Which row of which question."""
    return row.name, row.order


def _branches(row: Asked) -> int:
    return -(-len(row.options) // BRANCH_STEP) * BRANCH_STEP
