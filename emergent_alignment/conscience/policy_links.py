"""Corrections that the policy itself writes: both answers of a pair are then its own, and differ in
little but what the frozen copy sees in them.

`self`: it answers the same prompt again with the question before it as a system text; what is
trained on stands behind the prompt without that text. `best`: of several samples the one with the
highest score, over the one with the lowest. `fork`: it writes on from where the flagged answer had
got to; `amend`: there the frozen copy does, and what both answers begin with is the policy's.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Int

from emergent_alignment.conscience.hearing import Reviewer, Score
from emergent_alignment.conscience.revise import FORK_LINKS, POLICY_LINKS, Link
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.text import Answer
from emergent_alignment.randomness import Draws


@dataclass(frozen=True)
class Against:
    """What a correction is set against: its text, its score, and whether it is only a part of the
    candidate."""

    text: str
    score: float
    is_part: bool = False


@dataclass(frozen=True)
class WrittenAnswers:
    """An answer for each row, its score where it is known already, and what it is set against where
    that is not the candidate as it stands."""

    answers: list[Answer]
    scores: list[Score] | None = None
    against: list[Against] | None = None


class PolicyLinks(Protocol):
    """The policy as a writer of corrections of what it wrote."""

    @property
    def links(self) -> tuple[Link, ...]:
        """What it writes; all other links are the reviewer's."""

    @property
    def candidate_scores(self) -> list[Score] | None:
        """The candidates' scores, where they are known already."""

    def write(
        self, link: Link, place: int, rows: list[int], live: list[bool], scores: list[float]
    ) -> WrittenAnswers:
        """A correction for each of these rows, whose candidates have these scores, by a link of
        the chain that stands at `place`; for rows that are not `live` it means nothing."""


@dataclass(frozen=True)
class Ranked:
    """Several samples of one prompt by their scores: the worst and the best, their scores (None:
    chance is to say), and all scores in the samples' order (NaN where there is none)."""

    worst: Answer
    best: Answer
    worst_score: Score | None
    best_score: Score | None
    scores: list[float]


# (prompts of the rows that run, nothing for the others; the part that they draw from) → answers.
AnswersAgain = Callable[[int, list[int], list[bool]], list[Answer]]
# (who writes, rows, which of them are flagged, the candidates' scores) → their best forks.
Forks = Callable[[Link, list[int], list[bool], list[float]], WrittenAnswers]


@dataclass(frozen=True)
class WrittenByPolicy:
    """`answer_again(place, rows, live)` gives the answers of `self`, `fork` those of `fork` and
    `amend` (forks.py); `ranked` has those of `best`, by row. `fresh` gives the frozen copy's where
    not the reviewer writes them."""

    answer_again: AnswersAgain
    fork: Forks
    ranked: list[Ranked] | None = None
    fresh: AnswersAgain | None = None

    @property
    def links(self) -> tuple[Link, ...]:
        """See PolicyLinks."""
        return (*POLICY_LINKS, "fresh") if self.fresh else POLICY_LINKS

    @property
    def candidate_scores(self) -> list[Score] | None:
        """Those of the worst samples, unless chance is to say."""
        if not self.ranked or self.ranked[0].worst_score is None:
            return None
        return [one.worst_score for one in self.ranked]

    def write(
        self, link: Link, place: int, rows: list[int], live: list[bool], scores: list[float]
    ) -> WrittenAnswers:
        """See PolicyLinks."""
        if link in FORK_LINKS:
            return self.fork(link, rows, live, scores)
        if link in ("self", "fresh"):
            write = self.answer_again if link == "self" else self.fresh
            return WrittenAnswers(write(place, rows, live))
        of_rows = [self.ranked[row] for row in rows]
        best = [one.best_score for one in of_rows]
        return WrittenAnswers([one.best for one in of_rows], None if None in best else best)


def rank_samples(
    reviewer: Reviewer,
    settings: ConscienceSettings,
    prompts: list[list[Message]],
    samples: list[list[Answer]],
    draws: Draws,
    ids: Int[np.ndarray, "rows"],
) -> list[Ranked]:
    """Review every sample of every prompt, and rank each prompt's. Samples without a score rank
    nowhere; of equals the first counts. All prompts have equally many."""
    scores = score_samples(reviewer, settings, prompts, samples, draws, ids)
    return [_ranked(of_prompt, own) for of_prompt, own in zip(samples, scores)]


def score_samples(
    reviewer: Reviewer,
    settings: ConscienceSettings,
    prompts: list[list[Message]],
    samples: list[list[Answer]],
    draws: Draws,
    ids: Int[np.ndarray, "rows"],
) -> list[list[Score]]:
    """The score of every sample of every prompt. All prompts have equally many."""
    if not samples:
        return []
    number = len(samples[0])
    flat = [answer for of_prompt in samples for answer in of_prompt]
    asked = [prompt for prompt in prompts for _ in range(number)]
    places = (np.asarray(ids)[:, None] * number + np.arange(number)).reshape(-1)
    scores = score_answers(reviewer, settings, asked, flat, draws, places)
    return [scores[i * number : (i + 1) * number] for i in range(len(samples))]


def score_answers(
    reviewer: Reviewer,
    settings: ConscienceSettings,
    prompts: list[list[Message]],
    answers: list[Answer],
    draws: Draws,
    ids: Int[np.ndarray, "rows"],
) -> list[Score]:
    """The score of each answer to its prompt."""
    scoring = replace(settings, chain=(), critique=False)
    scores: list[Score] = []
    for start in range(0, len(answers), reviewer.batch_size):
        rows = slice(start, start + reviewer.batch_size)
        scores += reviewer.hear(scoring, prompts[rows], answers[rows], draws, ids[rows]).scores()
    return scores


def _ranked(answers: list[Answer], scores: list[Score]) -> Ranked:
    known = [
        place
        for place, (answer, score) in enumerate(zip(answers, scores))
        if np.isfinite(score.nats) and answer.text.strip()
    ]
    worst = min(known, key=lambda place: scores[place].nats, default=0)
    best = max(known, key=lambda place: scores[place].nats, default=0)
    nats = [score.nats if place in known else float("nan") for place, score in enumerate(scores)]
    return Ranked(answers[worst], answers[best], scores[worst], scores[best], nats)
