"""Links that whoever drafts writes, where nothing is trained: `self` drafts again with the question
before the conversation; `best` takes the best of several more drafts."""

from dataclasses import dataclass

import numpy as np

from emergent_alignment.conscience.drafting import Drafter, DraftSettings
from emergent_alignment.conscience.hearing import Reviewer
from emergent_alignment.conscience.policy_links import WrittenAnswers, rank_samples
from emergent_alignment.conscience.question import system_text, told_before
from emergent_alignment.conscience.revise import POLICY_LINKS, Link
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.text import Answer
from emergent_alignment.randomness import DRAFTED, Draws


@dataclass(frozen=True)
class DraftedLinks:
    """The drafter of these conversations as a writer of corrections. `chat` is that of a model of
    ours; `ids` are those that conversations draw from."""

    drafter: Drafter
    reviewer: Reviewer
    settings: ConscienceSettings
    conversations: list[list[Message]]
    draws: Draws
    ids: list[int]
    chat: Chat | None = None

    candidate_scores: None = None
    links: tuple[Link, ...] = POLICY_LINKS

    def write(
        self, link: Link, place: int, rows: list[int], live: list[bool], scores: list[float]
    ) -> WrittenAnswers:
        """See policy_links.PolicyLinks."""
        asked = [row for row, alive in zip(rows, live) if alive]
        if link == "self":
            text = system_text(self.settings.review.question)
            told = [told_before(self.conversations[row], text, self.chat) for row in asked]
            answers = self._drafts(told, place, 0, asked)
        else:
            answers = self._best(place, asked)
        nothing = Answer([], np.zeros(0, np.float32), "", True)
        by_row = dict(zip(asked, answers))
        return WrittenAnswers([by_row.get(row, nothing) for row in rows])

    def _best(self, place: int, rows: list[int]) -> list[Answer]:
        conversations = [self.conversations[row] for row in rows]
        numbers = range(self.settings.samples - 1)
        drafts = [self._drafts(conversations, place, number, rows) for number in numbers]
        ids = np.array([self.ids[row] for row in rows])
        samples = [list(of_row) for of_row in zip(*drafts)]
        ranked = rank_samples(self.reviewer, self.settings, conversations, samples, self.draws, ids)
        return [one.best for one in ranked]

    def _drafts(self, conversations, place: int, number: int, rows: list[int]) -> list[Answer]:
        settings = DraftSettings(
            self.settings.max_new_tokens,
            self.settings.temperature,
            self.settings.top_p,
            self.settings.stop,
        )
        seed = self.draws.number(DRAFTED + place, number)
        ids = [self.ids[row] for row in rows]
        drafts = self.drafter.drafts(conversations, settings, seed, ids, lambda done, total: None)
        return [draft.answer for draft in drafts]
