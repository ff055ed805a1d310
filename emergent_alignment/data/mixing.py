"""Batches that mix two kinds of rows in fixed numbers, all in one shape.

Batches of one kind of row, in shapes of their own, are in `buckets`.
"""

from dataclasses import dataclass

import numpy as np

from emergent_alignment.data.batches import order_seed, rows_of_step


@dataclass(frozen=True)
class MixedSchedule:
    """Which rows a step takes: a pure function of (seed, step).

    sizes   how many rows of the first and of the second kind there are; those of the second
            stand behind those of the first
    counts  how many of each a step takes
    seeds   of each kind, so that one may change its order while the other goes on
    shape   (prompt_width, branch_width)
    start   the step at which the first kind's order begins
    """

    sizes: tuple[int, int]
    counts: tuple[int, int]
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    shape: tuple[int, int]
    start: int = 0

    def rows_of_step(self, step: int) -> tuple[np.ndarray, tuple[int, int]]:
        """(int64[batch] rows, the first kind's first, and the shape). Permutations of each kind
        follow each other without dropping a row."""
        steps, offsets = (step - self.start, step), (0, self.sizes[0])
        rows = [
            offset + rows_of_step(size, count, order_seed(*seed), at)
            for offset, size, count, seed, at in zip(
                offsets, self.sizes, self.counts, self.seeds, steps
            )
            if count
        ]
        return np.concatenate(rows), self.shape
