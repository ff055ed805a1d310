"""A reviewer that decides by chance: the control that says what the question is worth.

It corrects as the frozen copy does; only the scores are drawn. How often it flags, and how often a
correction passes, are those of the run that it stands beside.
"""

from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jaxtyping import Float, Int

from emergent_alignment.conscience.frozen_hearing import FrozenReviewer
from emergent_alignment.conscience.hearing import CorrectedElsewhere, Corrections, Reviewer, Score
from emergent_alignment.conscience.judge import JudgeReviewer
from emergent_alignment.conscience.review import reader_of
from emergent_alignment.conscience.revise import Link
from emergent_alignment.conscience.settings import ConscienceSettings, own_verdict
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.text import Answer
from emergent_alignment.models.model import Model
from emergent_alignment.randomness import FLAGGING, PASSING, Draws

_CLEAR = 1.0  # nats above or below what decides


def reviewer_of(model: Model, chat: Chat, settings: ConscienceSettings) -> Reviewer:
    """Who reviews with these settings: the frozen copy, or in its place a function of the user's
    own, or chance. What is corrected, the frozen copy corrects."""
    reader = reader_of(model, chat, settings.review, settings.max_prompt)
    frozen = FrozenReviewer(reader)
    if settings.verdict:
        return JudgeReviewer(own_verdict(settings.verdict), frozen)
    return ChanceReviewer(frozen) if settings.chance else frozen


@dataclass(frozen=True)
class ChanceReviewer:
    """A reviewer whose verdicts are drawn (settings.chance), and whose corrections `writer`
    writes."""

    writer: Reviewer

    @property
    def batch_size(self) -> int:
        """Rows that it takes at once."""
        return self.writer.batch_size

    @property
    def is_same_everywhere(self) -> bool:
        """Chance is drawn by the rows' ids."""
        return self.writer.is_same_everywhere

    def hear(
        self,
        settings: ConscienceSettings,
        messages: list[list[Message]],
        candidates: list[Answer],
        draws: Draws,
        ids: Int[np.ndarray, "rows"],
    ) -> "ChanceHearing":
        """The candidates before chance."""
        heard = self.writer.hear(settings, messages, candidates, draws, ids)
        return ChanceHearing(heard, settings, draws, ids)


@dataclass(frozen=True, eq=False)
class ChanceHearing(CorrectedElsewhere):
    """A hearing whose scores are drawn: above or below what decides, whatever was said."""

    settings: ConscienceSettings
    draws: Draws
    ids: Int[np.ndarray, "rows"]
    drawn: list[float] = field(init=False)

    def __post_init__(self):
        threshold = self.settings.threshold
        flagged = self._uniform(FLAGGING) < self.settings.chance.flag_rate
        drawn = np.where(flagged, threshold - _CLEAR, threshold + _CLEAR).tolist()
        object.__setattr__(self, "drawn", drawn)

    def scores(self) -> list[Score]:
        return [Score(nats, "chance") for nats in self.drawn]

    def scores_of(self, corrections: Corrections, needed: list[bool]) -> list[Score]:
        """Above (or below) both the threshold and the candidate, so that either gate decides as
        the draw does."""
        passing = self._uniform(PASSING + corrections.kept) < self.settings.chance.pass_rate
        threshold, above = self.settings.threshold, self.settings.margin + _CLEAR
        return [
            Score(max(threshold, own) + above if passes else min(threshold, own) - _CLEAR, "chance")
            for own, passes in zip(self.drawn, passing)
        ]

    def write(self, link: Link, place: int, critiques: list[str], live: list[bool]) -> Corrections:
        # No review will read what the heard one keeps of them: the place is enough to draw by.
        return replace(self.heard.write(link, place, critiques, live), kept=place)

    def weigh(self, answers: list[Answer], place: int) -> Corrections:
        return Corrections(answers, None, [""] * len(answers), place)

    def _uniform(self, part: int) -> Float[np.ndarray, "rows"]:
        return np.asarray(jax.vmap(jax.random.uniform)(self.draws.keys(part, self.ids)))
