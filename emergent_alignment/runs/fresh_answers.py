"""Fresh answers of the frozen copy that a server of the user's writes: with adapters off, it is
there, too."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from emergent_alignment.conscience.hearing import (
    CorrectedElsewhere,
    Corrections,
    Hearing,
    Reviewer,
    Score,
)
from emergent_alignment.conscience.revise import Link
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Answer
from emergent_alignment.randomness import Draws
from emergent_alignment.runs.rollouts import Rollouts


@dataclass(frozen=True, eq=False)
class FreshFromServer:
    """A reviewer whose `fresh` corrections the base model of a run's server writes; all else is
    the other reviewer's."""

    reviewer: Reviewer
    rollouts: Rollouts
    chat: Chat

    @property
    def batch_size(self) -> int:
        """Rows that it takes at once."""
        return self.reviewer.batch_size

    @property
    def is_same_everywhere(self) -> bool:
        """A server may answer otherwise the next time."""
        return False

    def hear(
        self,
        settings: ConscienceSettings,
        messages: list[list[Message]],
        candidates: list[Answer],
        draws: Draws,
        ids: Int[np.ndarray, "rows"],
    ) -> "FreshHearing":
        """The candidates before the other reviewer."""
        alone = replace(settings, one_batch=False)  # fresh answers are not written beside rewrites
        heard = self.reviewer.hear(alone, messages, candidates, draws, ids)
        return FreshHearing(heard, self, settings, messages, draws, ids)


@dataclass(frozen=True, eq=False)
class FreshHearing(CorrectedElsewhere):
    """A hearing whose fresh answers come from a server."""

    heard: Hearing
    reviewer: FreshFromServer
    settings: ConscienceSettings
    messages: list[list[Message]]
    draws: Draws
    ids: Int[np.ndarray, "rows"]

    def scores(self) -> list[Score]:
        return self.heard.scores()

    def scores_of(self, corrections: Corrections, needed: list[bool]) -> list[Score]:
        return self.heard.scores_of(corrections, needed)

    def write(self, link: Link, place: int, critiques: list[str], live: list[bool]) -> Corrections:
        if link != "fresh":
            return self.heard.write(link, place, critiques, live)
        settings, chat = self.settings, self.reviewer.chat
        prompts = [
            chat.prompt_tokens(prompt)[-settings.max_prompt :] if alive else []
            for prompt, alive in zip(self.messages, live)
        ]
        seeds = [self.draws.number(place, int(row)) for row in self.ids]
        sampler = sampler_settings(
            chat.end_tokens,
            settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        answers = self.reviewer.rollouts.base_answers(prompts, seeds, sampler)
        return self.heard.weigh(answers, place)
