"""Buckets: the few (prompt, branch) widths that batches come in, chosen from the data's lengths,
and which rows each step takes (docs/design.md §6).

How rows become arrays is in `batches`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from emergent_alignment.data.batches import order_seed, rows_of_step

# Candidate widths a dimension. On 2400 rows of code (at most 1024 tokens, 16 buckets) the padding
# share is 0.149, and with all 60 widths 0.148 in 30 times the time.
MAX_WIDTHS = 24


@dataclass(frozen=True)
class Buckets:
    """Shapes of batches, and the rows of each.

    shapes   (prompt_width, branch_width) of each bucket, from the fewest positions to the most
    members  int64[rows of the bucket] for each bucket: which rows of the data, ascending; every
             row is in exactly one
    """

    shapes: tuple[tuple[int, int], ...]
    members: tuple[np.ndarray, ...]


def choose_buckets(
    prompt_lengths: np.ndarray,
    branch_lengths: np.ndarray,
    *,
    max_buckets: int = 16,
    multiple: int = 8,
    min_rows: int = 1,
) -> Buckets:
    """At most `max_buckets` shapes that pad the data little. A pure function of its arguments.

    prompt_lengths  int[rows]
    branch_lengths  int[rows], or int[rows, branches] (0: no such branch): all branches of a row
                    share one width, so a row takes prompt_width + branches · branch_width
    multiple        every width is a multiple of this
    min_rows        rows that every bucket has at least (the batch size, so that no batch has to
                    repeat rows), unless the data are fewer: then there is one bucket

    Shapes are added one by one, each the one that saves the most padding, and after each every
    former one is chosen anew; the best number of shapes is kept, so that a larger `max_buckets`
    never pads more. Raises ValueError without rows, or for a number that is not positive.
    """
    if min(max_buckets, multiple, min_rows) < 1:
        raise ValueError("max_buckets, multiple and min_rows must be 1 or more")
    lengths, branches = _row_lengths(prompt_lengths, branch_lengths)
    fitting = -(-np.maximum(lengths, 1) // multiple) * multiple
    best, fewest = None, np.inf
    for shapes in _growing_shapes(fitting, branches, max_buckets):
        buckets = _filled(shapes, fitting, branches, min_rows)
        positions = _num_positions(buckets, branches)
        if positions < fewest:
            best, fewest = buckets, positions
    return best


def data_padding_share(
    buckets: Buckets, prompt_lengths: np.ndarray, branch_lengths: np.ndarray
) -> float:
    """The share of positions that hold no token when every row is seen once, in its bucket; the
    lengths are those of `choose_buckets`."""
    _, branches = _row_lengths(prompt_lengths, branch_lengths)
    real = np.sum(prompt_lengths) + np.sum(branch_lengths)
    return float(1 - real / _num_positions(buckets, branches))


class Schedule:
    """Which rows a step trains on, and in which shape: a pure function of (seed, step).

    A batch comes from one bucket. Buckets take turns in proportion to their rows: with n rows in
    all, any n steps in a row give each bucket as many turns as it has rows, evenly spread. Inside
    a bucket, permutations follow each other without dropping a row (`batches.rows_of_step`), so
    every row is visited once in each pass over its bucket.
    """

    def __init__(self, buckets: Buckets, batch_size: int, seed: int):
        """Raises ValueError where a bucket is smaller than the batch though there are others."""
        sizes = np.array([members.size for members in buckets.members])
        if sizes.size > 1 and sizes.min() < batch_size:
            raise ValueError(
                f"a bucket has {sizes.min()} rows, fewer than the batch of {batch_size}; choose "
                "buckets with min_rows=batch_size"
            )
        self.buckets, self.batch_size = buckets, batch_size
        self._seeds = [order_seed(seed, place) for place in range(sizes.size)]
        self._order, self._turns = _turns(sizes)

    def rows_of_step(self, step: int) -> tuple[np.ndarray, tuple[int, int]]:
        """(int64[batch] rows of the data, (prompt_width, branch_width)) of step `step`.

        A row is there twice only where one permutation of its bucket ends and the next begins,
        or where the data are fewer than the batch.
        """
        period, place = divmod(step, self._order.size)
        bucket = self._order[place]
        members = self.buckets.members[bucket]
        turn = period * members.size + int(self._turns[place])
        places = rows_of_step(members.size, self.batch_size, self._seeds[bucket], turn)
        return members[places], self.buckets.shapes[bucket]


def _turns(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int[rows], int[rows]): the bucket of each step of one period, and how many turns that
    bucket has had before. A bucket of k rows has its turns at times (i + ½)/k for i < k."""
    bucket = np.repeat(np.arange(sizes.size), sizes)
    turn = np.concatenate([np.arange(size) for size in sizes])
    order = np.argsort((turn + 0.5) / sizes[bucket], kind="stable")
    return bucket[order], turn[order]


def _row_lengths(prompt_lengths: np.ndarray, branch_lengths: np.ndarray) -> tuple[np.ndarray, int]:
    """(int64[rows, 2] prompt and longest branch, number of branches). Raises ValueError."""
    prompts = np.asarray(prompt_lengths, np.int64)
    answers = np.asarray(branch_lengths, np.int64)
    if prompts.ndim != 1 or not prompts.size or answers.shape[:1] != prompts.shape:
        raise ValueError(
            f"lengths of prompts {prompts.shape} and branches {answers.shape} must be of the same "
            "rows, at least one"
        )
    answers = answers.reshape(prompts.size, -1)
    return np.stack([prompts, answers.max(1)], axis=1), answers.shape[1]


def _positions(shapes: np.ndarray, branches: int) -> np.ndarray:
    """int64[...]: positions of a row of each shape, from int64[..., 2]."""
    return shapes[..., 0] + branches * shapes[..., 1]


def _num_positions(buckets: Buckets, branches: int) -> int:
    """Positions of the whole data, padding included."""
    sizes = np.array([members.size for members in buckets.members])
    return int(sizes @ _positions(np.array(buckets.shapes), branches))


def _growing_shapes(fitting: np.ndarray, branches: int, most: int) -> Iterator[np.ndarray]:
    """Sets of 1, 2, … `most` shapes (int64[shapes, 2]) for rows of widths int64[rows, 2]; every
    row fits some shape of each set, and each set pads no more than the one before."""
    widths = [_candidate_widths(fitting[:, axis]) for axis in (0, 1)]
    shapes = np.stack(np.meshgrid(*widths, indexing="ij"), axis=-1).reshape(-1, 2)
    cells, counts = np.unique(
        np.stack([width[np.searchsorted(width, fitting[:, i])] for i, width in enumerate(widths)]),
        axis=1,
        return_counts=True,
    )
    fits = (cells.T[:, None] <= shapes).all(-1)
    # What a row of each cell costs in each shape, int or ∞: float64[cells, shapes].
    cost = np.where(fits, _positions(shapes, branches), np.inf)
    chosen: list[int] = []
    for _ in range(min(most, len(shapes))):
        chosen.append(_best_addition(cost, counts, chosen))
        chosen = _settled(cost, counts, chosen)
        yield shapes[chosen]


def _candidate_widths(widths: np.ndarray) -> np.ndarray:
    """At most MAX_WIDTHS of the widths that occur, the largest among them: int64[widths],
    ascending. Their shares of √tokens are equal, so that the few long rows get several."""
    different, counts = np.unique(widths, return_counts=True)
    if different.size <= MAX_WIDTHS:
        return different
    mass = np.cumsum(np.sqrt(different * counts))
    places = np.searchsorted(mass, mass[-1] * np.arange(1, MAX_WIDTHS) / MAX_WIDTHS)
    return np.unique(np.append(different[places], different[-1]))


def _best_addition(cost: np.ndarray, counts: np.ndarray, chosen: list[int]) -> int:
    """The shape that, beside the chosen ones, leaves the fewest positions; the first of equals."""
    now = cost[:, chosen].min(1, initial=np.inf)
    return int(np.argmin(counts @ np.minimum(now[:, None], cost)))


def _settled(cost: np.ndarray, counts: np.ndarray, chosen: list[int]) -> list[int]:
    """The chosen shapes, each in turn replaced by the best one beside the others, until none
    changes for the better."""

    def positions(places: list[int]) -> float:
        return counts @ cost[:, places].min(1)

    improved = True
    while improved:
        improved = False
        for place in range(len(chosen)):
            others = chosen[:place] + chosen[place + 1 :]
            moved = [*others[:place], _best_addition(cost, counts, others), *others[place:]]
            if positions(moved) < positions(chosen):
                chosen, improved = moved, True
    return chosen


def _filled(shapes: np.ndarray, fitting: np.ndarray, branches: int, min_rows: int) -> Buckets:
    """Buckets of at least `min_rows` rows (or one bucket): each row in the cheapest shape that
    holds it, but for the rows that a small bucket takes from cheaper ones."""
    shapes = shapes[np.argsort(_positions(shapes, branches), kind="stable")]
    costs = _positions(shapes, branches)
    fits = (fitting[:, None] <= shapes).all(-1)
    home = fits.argmax(1)
    # From the dearest: a few long rows are filled up with the next long ones, which costs less
    # than to widen the bucket of many.
    for place in reversed(range(len(shapes))):
        size = np.count_nonzero(home == place)
        (cheaper,) = np.nonzero(fits[:, place] & (home < place))
        if 0 < size < min_rows <= size + cheaper.size:
            nearest = np.argsort(costs[place] - costs[home[cheaper]], kind="stable")
            home[cheaper[nearest[: min_rows - size]]] = place
    members = [np.flatnonzero(home == place) for place in np.unique(home)]
    return _tight(_joined(members, fitting, branches, min_rows), fitting, branches)


def _joined(
    members: list[np.ndarray], fitting: np.ndarray, branches: int, min_rows: int
) -> list[np.ndarray]:
    """The smallest bucket joined with the one where that pads least, while it is too small."""

    def positions(rows: np.ndarray) -> int:
        return rows.size * int(_positions(fitting[rows].max(0), branches))

    members = sorted(members, key=len)
    while len(members) > 1 and members[0].size < min_rows:
        small, *others = members
        added = [positions(np.append(small, rows)) - positions(rows) for rows in others]
        place = int(np.argmin(added))
        others[place] = np.append(small, others[place])
        members = sorted(others, key=len)
    return members


def _tight(members: list[np.ndarray], fitting: np.ndarray, branches: int) -> Buckets:
    """Buckets of these rows, no wider than the rows need; those of one shape become one."""
    rows_of: dict[tuple[int, int], list[np.ndarray]] = {}
    for rows in members:
        shape = fitting[rows].max(0)
        rows_of.setdefault((int(shape[0]), int(shape[1])), []).append(rows)
    shapes = sorted(rows_of, key=lambda shape: (shape[0] + branches * shape[1], shape))
    joined = tuple(np.sort(np.concatenate(rows_of[shape])) for shape in shapes)
    return Buckets(tuple(shapes), joined)
