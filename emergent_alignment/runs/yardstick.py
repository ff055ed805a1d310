"""What the frozen copy itself writes, as the yardstick of what the policy writes: the scores of its
own answers to prompts that rounds listened to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A deviation or a level of so few scores says nothing.
FEWEST = 4


@dataclass(frozen=True)
class RoundScores:
    """One round's frozen scores: of the policy's samples, and of the frozen copy's own answers to
    the same prompts, where it was asked."""

    scores: list[float]
    yardstick: list[float]


def wants_yardstick(rounds: Sequence[RoundScores], number: int) -> bool:
    """Whether the frozen copy is still to answer, so that `number` of its scores are known."""
    return sum(len(measured.yardstick) for measured in rounds) < number


def own_level(known: Sequence[float], flags: float) -> float:
    """What gate=own asks for, in nats: so low that of the frozen copy's own answers, which have
    these scores, no more than a share `flags` lies below it. NaN where too few are known: nothing
    is flagged yet.

    A threshold that calibration set is a level of written answers, which score otherwise than what
    a policy writes; and a relative gate has no level: it goes on pleasing the reviewer where there
    is nothing left to correct (docs/results.md)."""
    return float(np.quantile(known, flags, method="lower")) if len(known) >= FEWEST else np.nan
