"""The alarm for displacement: preferred answers that themselves become less likely.

A preference loss looks at a difference, which also grows where both answers fall and the rejected
one falls further; the probability goes to answers that nobody has seen (Razin et al. 2024,
2410.08847).
"""

import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

from emergent_alignment.parallel.hosts import is_first
from emergent_alignment.training.hooks import NoHook, Told

WINDOW = 10  # steps of which the mean is taken


class DisplacementAlarm(NoHook):
    """Says once, on stderr, where the chosen answers of a run's pairs have lost this `share` of
    their reference log-prob, the mean of the last steps; `displacement` is that share in the log.
    `beta` is the loss's, which the logged rewards are multiplied with."""

    def __init__(self, share: float, beta: float):
        self._share, self._beta = share, beta
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._told = False

    def step_done(self, step: int, trainable: Any, scalars: Mapping[str, float]) -> Told:
        """The displacement of the step's own pairs."""
        moved = scalars["rewards_chosen"] / self._beta
        before = scalars["log_probs_chosen"] - moved
        if not before < 0:
            return Told()
        share = moved / before
        self._last.append(share)
        mean = sum(self._last) / len(self._last)
        if len(self._last) == WINDOW and mean > self._share and not self._told:
            self._told = True
            if is_first():
                print(alarm(step, mean), file=sys.stderr, flush=True)
        return Told({"displacement": share})


def alarm(step: int, share: float) -> str:
    """What is said."""
    return (
        f"step {step}: displacement: the chosen answers have become less likely themselves; their "
        f"log-prob is {share:.0%} further from 0 than the reference's. Only the difference is "
        "learnt. Set loss.chosen_nll_weight, lower optimizer.learning_rate, or raise loss.beta"
    )
