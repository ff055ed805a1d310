"""The frozen copy as reviewer: a model of ours that reads, scores and corrects."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from emergent_alignment.conscience.drafting import cut_at
from emergent_alignment.conscience.hearing import Corrections, Score, untied
from emergent_alignment.conscience.reader import Case, Reader, Shown
from emergent_alignment.conscience.review import form_scores, review_case
from emergent_alignment.conscience.revise import (
    FROZEN_LINKS,
    Link,
    requests_to_write,
    write_corrections,
    write_critiques,
    write_side_by_side,
)
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.sampler import Sampler, sampler_settings
from emergent_alignment.generation.text import Answer, given_answer
from emergent_alignment.randomness import CRITIQUES, Draws


@dataclass(frozen=True)
class FrozenReviewer:
    """A frozen model that reviews through its reader."""

    reader: Reader

    @property
    def batch_size(self) -> int:
        """Rows that it takes at once."""
        return self.reader.batch_size

    @property
    def is_same_everywhere(self) -> bool:
        """Its devices compute for all hosts."""
        return True

    def hear(
        self,
        settings: ConscienceSettings,
        messages: list[list[Message]],
        candidates: list[Answer],
        draws: Draws,
        ids: Int[np.ndarray, "rows"],
    ) -> "FrozenHearing":
        """The candidates before the model, which reads tokens."""
        chat = self.reader.chat
        known = [a if a.tokens else given_answer(chat, a.text) for a in candidates]
        return FrozenHearing(self.reader, settings, messages, known, draws, ids)


@dataclass(frozen=True, eq=False)
class FrozenHearing:
    """Candidates before a frozen model of ours. Every prompt is read at most once."""

    reader: Reader
    settings: ConscienceSettings
    messages: list[list[Message]]
    candidates: list[Answer]
    draws: Draws
    ids: Int[np.ndarray, "rows"]
    _written: dict[Link, tuple[Case, np.ndarray | None]] = field(default_factory=dict, repr=False)

    def scores(self) -> list[Score]:
        forms = self.settings.review.forms
        _, before, rows, _ = self._opened
        scores = form_scores(self.reader, before, rows[: len(forms)], forms).mean(-1)
        return [Score(untied(float(score))) for score in scores]

    def scores_of_beginnings(self, picks: list[tuple[int, int]]) -> list[Score]:
        """The scores of beginnings of the candidates, (row, tokens kept) each; in the `turn` layout
        each costs its question."""
        case, _, _, _ = self._opened
        scores: list[Score] = []
        for start in range(0, len(picks), self.reader.batch_size):
            part = self.reader.beginnings(case, picks[start : start + self.reader.batch_size])
            nats = review_case(self.reader, part, self.settings.review.forms).mean(-1)
            scores += [Score(untied(float(score))) for score in nats]
        return scores

    def critiques(self, live: list[bool], principles: list[str]) -> list[str]:
        case, before, _, _ = self._opened
        sampler = self._sampler(CRITIQUES)
        return write_critiques(self.reader, case, before, live, principles, sampler)

    def write(self, link: Link, place: int, critiques: list[str], live: list[bool]) -> Corrections:
        case, before, _, _ = self._opened
        if self.settings.side_by_side:
            written, log_probs = self._side_by_side(critiques, live)[link]
        else:
            written, log_probs = write_corrections(
                self.reader,
                link,
                self._prompts,
                case,
                before,
                critiques,
                live,
                self._sampler(place),
            )
        if self.settings.stop:
            written, log_probs = self._cut(written)
        return Corrections(written.answers, log_probs, [""] * len(live), written)

    def weigh(self, answers: list[Answer], place: int) -> Corrections:
        prompts = self._prompts if self.reader.layout == "turn" else None
        case, log_probs = self.reader.case(prompts, self.messages, answers)
        return Corrections(answers, log_probs, [""] * len(answers), case)

    def scores_of(self, corrections: Corrections, needed: list[bool]) -> list[Score]:
        scores = review_case(self.reader, corrections.kept, self.settings.review.forms, needed)
        return [Score(untied(float(score))) for score in scores.mean(-1)]

    def log_probs_of_candidates(self, needed: list[bool]) -> Float[np.ndarray, "rows"]:
        _, _, _, log_probs = self._opened
        return self.log_probs_of(self.candidates, needed) if log_probs is None else log_probs

    def log_probs_of(
        self, answers: Sequence[Answer | None], needed: list[bool]
    ) -> Float[np.ndarray, "rows"]:
        nothing = given_answer(self.reader.chat, "")
        asked = [answer if need and answer else nothing for answer, need in zip(answers, needed)]
        return self.reader.log_probs(self._prompts, asked)

    def _side_by_side(
        self, critiques: list[str], live: list[bool]
    ) -> dict[Link, tuple[Case, np.ndarray | None]]:
        """What both links of the frozen copy write, at the first one's turn, for all rows that are
        open then."""
        if not self._written:
            case, _, _, _ = self._opened
            prompts = self._prompts if self.reader.layout == "turn" else None
            chain = self.settings.chain
            samplers = {link: self._sampler(chain.index(link)) for link in FROZEN_LINKS}
            self._written.update(
                write_side_by_side(self.reader, prompts, case, critiques, live, samplers)
            )
        return self._written

    def _cut(self, written: Case) -> tuple[Case, np.ndarray | None]:
        """What is reviewed is what would be said: corrections cut at the texts of `stop`."""
        chat = self.reader.chat
        answers = [cut_at(answer, self.settings.stop, chat) for answer in written.answers]
        return self.reader.case(self._prompts, self.messages, answers)

    @cached_property
    def _prompts(self) -> Shown:
        return self.reader.read_prompts(self.messages)

    @cached_property
    def _opened(self) -> tuple[Case, Shown, list[list[list[int]]], np.ndarray | None]:
        """The candidates as a case; what was read before all that will be asked about them; the
        tokens of what will be asked; and log P(candidate | prompt) where reading them gave it."""
        reader, settings = self.reader, self.settings
        prompts = self._prompts if reader.layout == "turn" else None
        case, log_probs = reader.case(prompts, self.messages, self.candidates)
        asked = [form.request for form in settings.review.forms]
        asked += requests_to_write(settings.chain, settings.critique)
        rows = [reader.rows(case, [request] * len(self.candidates)) for request in asked]
        return case, reader.before(case, rows), rows, log_probs

    def _sampler(self, part: int) -> Sampler:
        """How a part of what it writes is drawn."""
        settings = sampler_settings(
            self.reader.chat.end_tokens,
            self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
        )
        return Sampler(settings, self.draws.keys(part, self.ids))
