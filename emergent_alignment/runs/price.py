"""λ as a price: as high as it must be for what the policy writes to be judged no worse than what
the frozen copy writes.

λ ← clip(λ · exp(rate · violation)) after every round of listening, where the violation is how far
the mean score of the policy's samples lies below the frozen copy's own, less a slack, in standard
deviations of the frozen copy's scores (dual ascent on log λ, as in Safe RLHF: Dai et al. 2023,
2310.12773, section 3.4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emergent_alignment.runs.yardstick import FEWEST, RoundScores
from emergent_alignment.settings import Section, setting


@dataclass(frozen=True)
class PriceSection(Section):
    """λ where config.loss.alignment_weight is auto."""

    start: float = setting(1.0, "λ before anything was measured.", more_than=0)
    slack: float = setting(
        0.3,
        "δ: how far the policy's mean score may lie below the frozen copy's, in its deviations.",
        at_least=0,
    )
    rate: float = setting(0.5, "How fast λ moves: its log, a round and deviation.", more_than=0)
    least: float = setting(0.1, "λ is never less.", more_than=0)
    most: float = setting(32.0, "λ is never more.", more_than=0)
    yardstick: int = setting(
        64, "Answers of the frozen copy that its mean score is taken from.", at_least=FEWEST
    )


def price(rounds: Sequence[RoundScores], settings: PriceSection) -> float:
    """λ after these rounds."""
    weight, known = settings.start, []
    for measured in rounds:
        known += measured.yardstick
        if len(known) < FEWEST or not measured.scores:
            continue
        deviation = max(float(np.std(known)), 1e-6)
        behind = float(np.mean(known)) - float(np.mean(measured.scores))
        violation = behind / deviation - settings.slack
        step = max(min(settings.rate * violation, 50.0), -50.0)
        weight = min(max(weight * math.exp(step), settings.least), settings.most)
    return weight
