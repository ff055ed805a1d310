"""A reviewer that decides by chance: the control that says what the question is worth.

It corrects as the frozen copy does; only the scores are drawn. How often it flags, and how often a
correction passes, are those of the run that it stands beside.
"""

from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from emergent_alignment.conscience.hearing import Hearing, Score, Written, hear
from emergent_alignment.conscience.reader import Reader
from emergent_alignment.conscience.review import reader_of
from emergent_alignment.conscience.revise import Link
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.chat import Chat
from emergent_alignment.generation.text import Answer, row_keys
from emergent_alignment.models.model import Model

# Purposes of randomness beside those of corrections, which are their links' small numbers.
_FLAGGING, _PASSING = 1 << 17, 1 << 18
_CLEAR = 1.0  # nats above or below what decides


def reviewer_of(model: Model, chat: Chat, settings: ConscienceSettings) -> "Reader | ByChance":
    """Who reviews with these settings: the frozen copy, or chance in its place."""
    reader = reader_of(model, chat, settings.review, settings.max_prompt)
    return ByChance(reader) if settings.chance else reader


@dataclass(frozen=True)
class ByChance:
    """The frozen copy's reader, whose verdicts are drawn (settings.chance)."""

    reader: Reader

    @property
    def batch_size(self) -> int:
        """Rows that it takes at once."""
        return self.reader.batch_size


@dataclass(frozen=True, eq=False)
class ChanceHearing:
    """A hearing whose scores are drawn: above or below what decides, whatever was said."""

    heard: Hearing
    settings: ConscienceSettings
    key: Key[Array, ""]
    ids: Int[np.ndarray, "rows"]
    drawn: list[float] = field(init=False)

    def __post_init__(self):
        threshold = self.settings.threshold
        flagged = self._uniform(_FLAGGING) < self.settings.chance.flag_rate
        drawn = np.where(flagged, threshold - _CLEAR, threshold + _CLEAR).tolist()
        object.__setattr__(self, "drawn", drawn)

    def scores(self) -> list[Score]:
        return [Score(nats, "chance") for nats in self.drawn]

    def scores_of(self, written: Written, needed: list[bool]) -> list[Score]:
        """Above (or below) both the threshold and the candidate, so that either gate decides as
        the draw does."""
        passing = self._uniform(_PASSING + written.kept) < self.settings.chance.pass_rate
        threshold, above = self.settings.threshold, self.settings.margin + _CLEAR
        return [
            Score(max(threshold, own) + above if passes else min(threshold, own) - _CLEAR, "chance")
            for own, passes in zip(self.drawn, passing)
        ]

    def critiques(self, live: list[bool]) -> list[str]:
        return self.heard.critiques(live)

    def write(self, link: Link, place: int, critiques: list[str], live: list[bool]) -> Written:
        # No review will read what the heard one keeps of them: the place is enough to draw by.
        return replace(self.heard.write(link, place, critiques, live), kept=place)

    def log_probs_of_candidates(self, needed: list[bool]) -> Float[np.ndarray, "rows"]:
        return self.heard.log_probs_of_candidates(needed)

    def log_probs_of(self, answers: list[Answer], needed: list[bool]) -> Float[np.ndarray, "rows"]:
        return self.heard.log_probs_of(answers, needed)

    def _uniform(self, purpose: int) -> Float[np.ndarray, "rows"]:
        keys = row_keys(jax.random.fold_in(self.key, purpose), self.ids)
        return np.asarray(jax.vmap(jax.random.uniform)(keys))


@hear.register
def _(reviewer: ByChance, settings, messages, candidates, key, ids) -> ChanceHearing:
    heard = hear(reviewer.reader, settings, messages, candidates, key, ids)
    return ChanceHearing(heard, settings, key, ids)
