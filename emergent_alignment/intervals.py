"""Means, shares and rank statistics, each with a 95% interval. NumPy alone: any layer may use it.

Every interval is over the items that were measured (answers, matched pairs). It says nothing
about another training seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 2000
_NORMAL_975 = 1.959963984540054  # 97.5% point of the standard normal
_CHUNK_ELEMENTS = 2_000_000  # random numbers held at once while resampling


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95% interval.

    value      the estimate, in the unit of what was measured
    low, high  ends of the 95% interval, same unit
    n          how many items (or matched pairs) the estimate is over
    """

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """`{"value", "low", "high", "n"}` of plain numbers."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}

    def text(self, digits: int = 2) -> str:
        """For a table: "0.62 [0.51, 0.73]"."""
        value, low, high = (
            f"{round(part, digits) + 0.0:.{digits}f}" for part in (self.value, self.low, self.high)
        )
        return f"{value} [{low}, {high}]"


def mean_interval(values: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean of `values` with a percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    With fewer than about 20 values the interval is somewhat too narrow; one value gives no width.
    """
    values = _finite_vector(values, "values")
    random = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[random.integers(values.size, size=(rows, values.size))].mean(axis=1)
            for rows in _chunks(resamples, values.size)
        ]
    )
    return _interval(float(values.mean()), means, values.size)


def mean_over_seeds(values: ArrayLike) -> Interval:
    """The mean over training seeds with Student's t interval (Student 1908), n the seeds.

    Two seeds are the least; with three the interval reaches 4.3 standard errors each way.
    """
    from scipy.special import stdtrit  # here: it takes as long to import as all the rest

    values = _finite_vector(values, "values")
    if values.size < 2:
        raise ValueError("one seed says nothing about another")
    error = values.std(ddof=1) / np.sqrt(values.size)
    reach = float(stdtrit(values.size - 1, 0.975) * error)
    mean = float(values.mean())
    return Interval(mean, mean - reach, mean + reach, values.size)


def error_interval(value: float, standard_error: float, n: int) -> Interval:
    """An estimate with ± 1.96 of its standard errors, for what comes with its error alone."""
    half_width = _NORMAL_975 * standard_error
    return Interval(value, value - half_width, value + half_width, n)


def share_interval(successes: float, n: int) -> Interval:
    """The share successes / n with Wilson's score interval (Wilson 1927).

    Never empty, also at 0 and n. `successes` may hold halves (ties).
    """
    if n < 1:
        raise ValueError("a share needs at least one item, n is 0")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} items is not a share")
    share = successes / n
    low, high = _wilson(share, n, _NORMAL_975)
    return Interval(share, 0.0 if successes == 0 else low, 1.0 if successes == n else high, n)


def clustered_share(successes: ArrayLike, sizes: ArrayLike) -> Interval:
    """The share Σ successes / Σ sizes of items that come in clusters, such as answers to the same
    question, which are more alike than others.

    Wilson's interval with n divided by the design effect, the variance between clusters over that
    of independent items (Rao & Scott 1992; at least 1), and Student's t of clusters − 1 in place of
    the normal (Franco et al. 2019, J. Surv. Stat. Methodol. 7:334). Where no item or every one is a
    success the clusters tell nothing, and the design effect is 1. One cluster is `share_interval`.
    """
    from scipy.special import stdtrit  # here: it takes as long to import as all the rest

    hits, sizes = _matched(successes, sizes)
    n, total = int(sizes.sum()), float(hits.sum())
    if sizes.size < 2 or not 0 < total < n:
        return share_interval(total, n)
    share, clusters = total / n, sizes.size
    between = clusters / (clusters - 1) * ((hits - share * sizes) ** 2).sum() / n**2
    effect = max(1.0, between / (share * (1 - share) / n))
    low, high = _wilson(share, n / effect, float(stdtrit(clusters - 1, 0.975)))
    return Interval(share, low, high, n)


def clustered_mean(
    values: ArrayLike, clusters: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The mean of values that come in clusters, with a percentile bootstrap interval over whole
    clusters (Davison & Hinkley 1997, ch. 3.8); one cluster is `mean_interval`."""
    values = _finite_vector(values, "values")
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    if names.size < 2:
        return mean_interval(values, seed=seed, resamples=resamples)
    sums, sizes = np.bincount(place, weights=values), np.bincount(place)
    drawn = np.random.default_rng(seed).multinomial(
        names.size, np.full(names.size, 1 / names.size), size=resamples
    )
    return _interval(float(values.mean()), (drawn @ sums) / (drawn @ sizes), values.size)


def paired_difference(
    a: ArrayLike, b: ArrayLike, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The mean of a − b over matched items, with a bootstrap interval over the items.

    a[i] and b[i] must be the same item under two conditions: what varies from item to item then
    cancels, and the interval is narrower than that of two separate means.
    """
    a, b = _matched(a, b)
    return mean_interval(a - b, seed=seed, resamples=resamples)


def auc(good: ArrayLike, bad: ArrayLike) -> float:
    """P(good > bad) + P(good = bad) / 2 over all pairs of a good and a bad score.

    The area under the ROC curve, by ranks (Mann & Whitney 1947), O(n log n).
    """
    good, bad = _vector(good, "good"), np.sort(_vector(bad, "bad"))
    below = np.searchsorted(bad, good, side="left")
    not_above = np.searchsorted(bad, good, side="right")
    return float((below + not_above).sum() / (2 * good.size * bad.size))


def auc_interval(
    good: ArrayLike, bad: ArrayLike, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """`auc` with a percentile bootstrap interval; good and bad are resampled separately.

    n is the smaller group. Perfect separation resamples to itself: an interval of no width, so
    read n as well.
    """
    good, bad = _vector(good, "good"), _vector(bad, "bad")
    levels, level_of = np.unique(np.concatenate([good, bad]), return_inverse=True)
    share_good = np.bincount(level_of[: good.size], minlength=levels.size) / good.size
    share_bad = np.bincount(level_of[good.size :], minlength=levels.size) / bad.size

    random = np.random.default_rng(seed)
    areas = []
    for rows in _chunks(resamples, levels.size):
        # How often each score level is drawn: the same law as drawing scores one by one.
        counts_good = random.multinomial(good.size, share_good, size=rows)
        counts_bad = random.multinomial(bad.size, share_bad, size=rows)
        below = np.cumsum(counts_bad, axis=1) - counts_bad / 2
        areas.append((counts_good * below).sum(axis=1) / (good.size * bad.size))
    value = auc(good, bad)
    return _interval(value, np.concatenate(areas), min(good.size, bad.size))


def told_apart(
    good: ArrayLike, bad: ArrayLike, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The share of matched pairs with good > bad, ties half, with a bootstrap interval over pairs.

    Where all pairs are told apart the interval has no width, so read n as well.
    """
    good, bad = _matched(good, bad)
    wins = (good > bad) + (good == bad) / 2
    return mean_interval(wins, seed=seed, resamples=resamples)


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    """The ends of Wilson's score interval."""
    per_item = quantile**2 / n
    centre = (share + per_item / 2) / (1 + per_item)
    reach = quantile * np.sqrt(share * (1 - share) / n + per_item / (4 * n)) / (1 + per_item)
    return float(centre - reach), float(centre + reach)


def _interval(value: float, estimates: np.ndarray, n: int) -> Interval:
    low, high = np.percentile(estimates, [2.5, 97.5])
    return Interval(value, float(low), float(high), int(n))


def _chunks(resamples: int, width: int) -> Sequence[int]:
    """How many resamples to draw at a time, so that memory stays bounded."""
    rows = max(1, _CHUNK_ELEMENTS // width)
    return [min(rows, resamples - start) for start in range(0, resamples, rows)]


def _vector(values: ArrayLike, name: str) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"`{name}` must be a list of numbers, its shape is {vector.shape}")
    if vector.size == 0:
        raise ValueError(f"`{name}` is empty: there is nothing to measure")
    if np.isnan(vector).any():
        raise ValueError(f"`{name}` holds NaN: leave out what was not scored, and say how many")
    return vector


def _finite_vector(values: ArrayLike, name: str) -> np.ndarray:
    vector = _vector(values, name)
    if not np.isfinite(vector).all():
        raise ValueError(f"`{name}` holds an infinite number: it has no mean")
    return vector


def _matched(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = _vector(a, "first list"), _vector(b, "second list")
    if a.size != b.size:
        raise ValueError(f"matched lists must be equally long, not {a.size} and {b.size}")
    return a, b
