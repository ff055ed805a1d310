"""Two shares compared: the interval of their difference, and how many answers would show it."""

import math
from statistics import NormalDist

from emergent_alignment.intervals import Interval

POWER = 0.8
LEVEL = 0.05  # two-sided


def share_difference(first: Interval, second: Interval) -> Interval:
    """first − second for two independent shares, each with its Wilson interval.

    Newcombe 1998, Statistics in Medicine 17:873, method 10: the ends lie as far from the
    difference as the ends of the single intervals are from their shares, added in quadrature.
    """
    difference = first.value - second.value
    down = math.hypot(first.value - first.low, second.high - second.value)
    up = math.hypot(first.high - first.value, second.value - second.low)
    return Interval(difference, difference - down, difference + up, min(first.n, second.n))


def answers_needed(first: float, second: float) -> int | None:
    """Answers an arm with which a test of two shares (two-sided, at LEVEL) finds this difference
    with probability POWER; None where there is no difference to find.

    n = (z_{1−α/2} √(2 p̄ (1−p̄)) + z_{power} √(p₁(1−p₁) + p₂(1−p₂)))² / (p₁−p₂)²
    (Fleiss, Levin & Paik 2003, eq. 4.14, without the correction for continuity)
    """
    if first == second:
        return None
    mean = (first + second) / 2
    normal = NormalDist()
    null = normal.inv_cdf(1 - LEVEL / 2) * math.sqrt(2 * mean * (1 - mean))
    apart = normal.inv_cdf(POWER) * math.sqrt(first * (1 - first) + second * (1 - second))
    return math.ceil(((null + apart) / (first - second)) ** 2)
