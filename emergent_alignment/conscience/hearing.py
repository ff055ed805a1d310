"""What the account of outcomes (pairs.py) needs of whoever reviews, and no more.

The frozen copy fulfils it in frozen_hearing.py, chance in chance.py, an endpoint in
endpoint_hearing.py, a judge of the user's own in judge.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, Int

from emergent_alignment.conscience.revise import Link
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.text import Answer
from emergent_alignment.randomness import Draws

ScoredBy = Literal["logits", "logprobs", "text", "chance", "judge", ""]


@dataclass(frozen=True)
class Score:
    """One verdict: nats (NaN where there is none), what they were read from ("": from nothing),
    why the reviewer gave none where it failed, and whether they are only a bound from above."""

    nats: float
    scored_by: ScoredBy = "logits"
    failure: str = ""
    at_most: bool = False


def untied(nats: float) -> float:
    """A score of words against words, of which a tie is none for the answer: it counts as the
    least that speaks against it."""
    return math.nextafter(0.0, -1.0) if nats == 0 else nats


@dataclass(frozen=True)
class Corrections:
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

    def critiques(self, live: list[bool], principles: list[str]) -> list[str]:
        """A short written critique of each candidate, by its principle ("": by none)."""

    def write(self, link: Link, place: int, critiques: list[str], live: list[bool]) -> Corrections:
        """One correction a candidate, by a link of the chain that stands at `place`."""

    def weigh(self, answers: list[Answer], place: int) -> Corrections:
        """Corrections that somebody else wrote, by a link at `place`, ready for their review."""

    def scores_of(self, corrections: Corrections, needed: list[bool]) -> list[Score]:
        """The scores of corrections that `write` or `weigh` gave."""

    def log_probs_of_candidates(self, needed: list[bool]) -> Float[np.ndarray, "rows"]:
        """log P(candidate | prompt)."""

    def log_probs_of(
        self, answers: Sequence[Answer | None], needed: list[bool]
    ) -> Float[np.ndarray, "rows"]:
        """log P(answer | prompt)."""


class Reviewer(Protocol):
    """Whoever reviews and corrects, `batch_size` candidates at once."""

    @property
    def batch_size(self) -> int:
        """Rows that it takes at once."""

    @property
    def is_same_everywhere(self) -> bool:
        """Whether hosts that hear the same come to the same, so that all may hear all rows."""

    def hear(
        self,
        settings: ConscienceSettings,
        messages: list[list[Message]],
        candidates: list[Answer],
        draws: Draws,
        ids: Int[np.ndarray, "rows"],
    ) -> Hearing:
        """Put candidates, and the conversations that they answer, before it. A row draws from
        `draws` and its id. A candidate may come without its tokens."""


@dataclass(frozen=True, eq=False)
class CorrectedElsewhere:
    """A hearing that only scores: another one writes, and gives log-probs."""

    heard: Hearing

    def critiques(self, live: list[bool], principles: list[str]) -> list[str]:
        return self.heard.critiques(live, principles)

    def write(self, link: Link, place: int, critiques: list[str], live: list[bool]) -> Corrections:
        return self.heard.write(link, place, critiques, live)

    def weigh(self, answers: list[Answer], place: int) -> Corrections:
        return self.heard.weigh(answers, place)

    def log_probs_of_candidates(self, needed: list[bool]) -> Float[np.ndarray, "rows"]:
        return self.heard.log_probs_of_candidates(needed)

    def log_probs_of(
        self, answers: Sequence[Answer | None], needed: list[bool]
    ) -> Float[np.ndarray, "rows"]:
        return self.heard.log_probs_of(answers, needed)
