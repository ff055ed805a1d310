"""A judge of the user's own in place of the question: it scores, another reviewer corrects."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from emergent_alignment.conscience.hearing import (
    CorrectedElsewhere,
    Corrections,
    Reviewer,
    Score,
)
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.text import Answer
from emergent_alignment.randomness import Draws

# (the conversation, an answer to it) → its score: at or above the threshold it is approved.
Verdict = Callable[[list[Message], str], float]


@dataclass(frozen=True, eq=False)
class JudgeReviewer:
    """A reviewer whose scores are those of `verdict`, and whose corrections `writer` writes: the
    `reviewer` of any Conscience. What `verdict` raises is not caught."""

    verdict: Verdict
    writer: Reviewer

    @property
    def batch_size(self) -> int:
        """Rows that it takes at once."""
        return self.writer.batch_size

    @property
    def is_same_everywhere(self) -> bool:
        """Nobody knows what a user's function asks, or how often it may."""
        return False

    def hear(
        self,
        settings: ConscienceSettings,
        messages: list[list[Message]],
        candidates: list[Answer],
        draws: Draws,
        ids: Int[np.ndarray, "rows"],
    ) -> "JudgedHearing":
        """The candidates before the judge."""
        heard = self.writer.hear(settings, messages, candidates, draws, ids)
        return JudgedHearing(heard, self.verdict, messages, candidates)


@dataclass(frozen=True, eq=False)
class JudgedHearing(CorrectedElsewhere):
    """A hearing whose scores are a judge's."""

    verdict: Verdict
    messages: list[list[Message]]
    candidates: list[Answer]

    def scores(self) -> list[Score]:
        return self._scores(self.candidates, [True] * len(self.candidates))

    def scores_of(self, corrections: Corrections, needed: list[bool]) -> list[Score]:
        return self._scores(corrections.answers, needed)

    def _scores(self, answers: list[Answer], needed: list[bool]) -> list[Score]:
        return [
            Score(float(self.verdict(prompt, answer.text)), "judge") if need else Score(np.nan, "")
            for prompt, answer, need in zip(self.messages, answers, needed)
        ]
