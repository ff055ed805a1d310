"""A hearing: one batch of candidates before a reviewer.

What the account of outcomes (pairs.py) needs of a reviewer, and no more; a frozen model of ours
fulfils it here, an endpoint in endpoint_hearing.py.
"""

from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from emergent_alignment.conscience.drafting import cut_at
from emergent_alignment.conscience.reader import Case, Reader, Shown
from emergent_alignment.conscience.review import form_scores, review_case
from emergent_alignment.conscience.revise import (
    Link,
    requests_to_write,
    write_corrections,
    write_critiques,
)
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.chat import Message
from emergent_alignment.generation.sampler import SamplerSettings, sampler_settings
from emergent_alignment.generation.text import Answer, given_answer, row_keys

ScoredBy = Literal["logits", "logprobs", "text", "chance", ""]


@dataclass(frozen=True)
class Score:
    """One verdict: nats (NaN where there is none), what they were read from ("": from nothing),
    and why the reviewer gave none where it failed."""

    nats: float
    scored_by: ScoredBy = "logits"
    failure: str = ""


@dataclass(frozen=True)
class Written:
    """Corrections, one a row: the answers (empty where none was wanted), log P(answer | prompt)
    where writing gave it, why the reviewer wrote none where it failed, and what it keeps of them
    for their review."""

    answers: list[Answer]
    log_probs: Float[np.ndarray, "rows"] | None
    failures: list[str]
    kept: Any = None


class Hearing(Protocol):
    """One batch of candidates before a reviewer. `live` and `needed` say for which rows
    something is wanted; what comes back for the others means nothing."""

    def scores(self) -> list[Score]:
        """The candidates' own scores."""

    def critiques(self, live: list[bool]) -> list[str]:
        """A short written critique of each candidate."""

    def write(self, link: Link, place: int, critiques: list[str], live: list[bool]) -> Written:
        """One correction a candidate, by a link of the chain that stands at `place`."""

    def scores_of(self, written: Written, needed: list[bool]) -> list[Score]:
        """The scores of corrections."""

    def log_probs_of_candidates(self, needed: list[bool]) -> Float[np.ndarray, "rows"]:
        """log P(candidate | prompt)."""

    def log_probs_of(self, answers: list[Answer], needed: list[bool]) -> Float[np.ndarray, "rows"]:
        """log P(answer | prompt)."""


@singledispatch
def hear(
    reviewer: Any,
    settings: ConscienceSettings,
    messages: list[list[Message]],
    candidates: list[Answer],
    key: Any,
    ids: Int[np.ndarray, "rows"],
) -> Hearing:
    """Put candidates before a reviewer. A row draws from `key` (a JAX key for a model, an int
    or None for an endpoint) and its id."""
    raise TypeError(f"{type(reviewer).__name__} is no reviewer")


@dataclass(frozen=True, eq=False)
class ModelHearing:
    """Candidates before a frozen model of ours. Every prompt is read at most once."""

    reader: Reader
    settings: ConscienceSettings
    messages: list[list[Message]]
    candidates: list[Answer]
    key: Key[Array, ""]
    ids: Int[np.ndarray, "rows"]

    def scores(self) -> list[Score]:
        forms = self.settings.review.forms
        _, before, rows, _ = self._opened
        found = form_scores(self.reader, before, rows[: len(forms)], forms).mean(-1)
        return [Score(float(score)) for score in found]

    def critiques(self, live: list[bool]) -> list[str]:
        case, before, _, _ = self._opened
        keys = self._keys(1 << 16)
        return write_critiques(self.reader, case, before, live, keys, self._sampler)

    def write(self, link: Link, place: int, critiques: list[str], live: list[bool]) -> Written:
        case, before, _, _ = self._opened
        written, log_probs = write_corrections(
            self.reader,
            link,
            self._prompts,
            case,
            before,
            critiques,
            live,
            self._keys(place),
            self._sampler,
        )
        if self.settings.stop:
            written, log_probs = self._cut(written)
        return Written(written.answers, log_probs, [""] * len(live), written)

    def scores_of(self, written: Written, needed: list[bool]) -> list[Score]:
        found = review_case(self.reader, written.kept, self.settings.review.forms, needed)
        return [Score(float(score)) for score in found.mean(-1)]

    def log_probs_of_candidates(self, needed: list[bool]) -> Float[np.ndarray, "rows"]:
        _, _, _, log_probs = self._opened
        return self.log_probs_of(self.candidates, needed) if log_probs is None else log_probs

    def log_probs_of(self, answers: list[Answer], needed: list[bool]) -> Float[np.ndarray, "rows"]:
        nothing = given_answer(self.reader.chat, "")
        asked = [answer if need else nothing for answer, need in zip(answers, needed)]
        return self.reader.log_probs(self._prompts, asked)

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

    @cached_property
    def _sampler(self) -> SamplerSettings:
        return sampler_settings(
            self.reader.chat.end_tokens,
            self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
        )

    def _keys(self, purpose: int) -> Key[Array, "rows"]:
        return row_keys(jax.random.fold_in(self.key, purpose), self.ids)


@hear.register
def _(reviewer: Reader, settings, messages, candidates, key, ids) -> ModelHearing:
    return ModelHearing(reviewer, settings, messages, candidates, key, ids)
