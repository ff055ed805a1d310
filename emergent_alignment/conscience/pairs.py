"""From candidates to pairs: review, correct, review again, and one outcome for each.

Every candidate ends in exactly one outcome, and the counts add up to the candidates.
"""

import difflib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np

from emergent_alignment.conscience.review import ReviewSettings, scores
from emergent_alignment.conscience.revise import Link, write_corrections, write_critiques
from emergent_alignment.data.chat import Chat, Message
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Answer
from emergent_alignment.models.model import Model

Gate = Literal["score", "relative"]

DROPPED = ("empty", "identical", "disapproved", "truncated", "too_long", "not_finite")
OUTCOMES = (
    "approved",
    "revised_rewrite",
    "revised_fresh",
    *(f"dropped_{reason}" for reason in DROPPED),
)


@dataclass(frozen=True)
class ConscienceSettings:
    """How the conscience decides and corrects.

    review          question, layout, polarity
    gate            `score` corrects what is flagged; `relative` corrects every candidate and
                    keeps the pair where the correction scores higher
    threshold       scores at or above it are approved (nats)
    margin          how far above the threshold (score) or the candidate (relative) a
                    correction must score, in nats
    chain           the links of correction, tried in order
    critique        whether the frozen copy first writes what is wrong (read by `rewrite`)
    max_new_tokens, temperature, top_p   how corrections are sampled
    keep_truncated  whether a correction that ran into the length limit may be chosen
    max_response    corrections longer than this many tokens are dropped as too long
    similarity      texts at least this alike (0 to 1, difflib's ratio over words) count as
                    identical
    """

    review: ReviewSettings
    gate: Gate = "score"
    threshold: float = 0.0
    margin: float = 0.0
    chain: tuple[Link, ...] = ("rewrite", "fresh")
    critique: bool = False
    max_new_tokens: int = 64
    temperature: float = 0.7
    top_p: float = 0.95
    keep_truncated: bool = False
    max_response: int = 1024
    similarity: float = 0.95


@dataclass(frozen=True)
class Attempt:
    """One correction: the link that wrote it, the answer, its score (NaN: never reviewed) and
    why it was not taken ("" if it was)."""

    link: Link
    answer: Answer
    score: float
    reason: str


@dataclass(frozen=True)
class Reviewed:
    """What became of one candidate: its score, its outcome, the attempts to correct it."""

    prompt: list[Message]
    candidate: str
    score: float
    outcome: str
    critique: str = ""
    attempts: tuple[Attempt, ...] = ()

    @property
    def chosen(self) -> Answer | None:
        """The correction that was taken, or None."""
        taken = [attempt.answer for attempt in self.attempts if not attempt.reason]
        return taken[-1] if taken else None

    @property
    def chosen_score(self) -> float:
        """The score of `chosen`, NaN where there is none."""
        taken = [attempt.score for attempt in self.attempts if not attempt.reason]
        return taken[-1] if taken else float("nan")


def review_and_revise(
    model: Model,
    params: dict,
    chat: Chat,
    settings: ConscienceSettings,
    prompts: list[list[Message]],
    candidates: list[str],
    key: jax.Array,
) -> list[Reviewed]:
    """The conscience step for a list of candidates, with the frozen parameters `params`."""
    first = scores(model, params, chat, settings.review, prompts, candidates)
    found = [
        Reviewed(prompt, text, float(score), _first_outcome(text, float(score), settings))
        for prompt, text, score in zip(prompts, candidates, first)
    ]
    open_rows = [i for i, row in enumerate(found) if not row.outcome]
    if settings.critique and open_rows:
        found = _with_critiques(model, params, chat, settings, found, open_rows, key)
    for place, link in enumerate(settings.chain):
        if not open_rows:
            break
        link_key = jax.random.fold_in(key, place)
        attempts = _attempt(model, params, chat, settings, link, found, open_rows, link_key)
        for i, attempt in zip(open_rows, attempts):
            outcome = "" if attempt.reason else f"revised_{link}"
            found[i] = replace(found[i], attempts=(*found[i].attempts, attempt), outcome=outcome)
        open_rows = [i for i in open_rows if not found[i].outcome]
    for i in open_rows:
        found[i] = replace(found[i], outcome=f"dropped_{found[i].attempts[-1].reason}")
    return found


def count_outcomes(reviewed: list[Reviewed]) -> dict[str, int]:
    """How many candidates ended in each outcome; every outcome is named, also at 0."""
    counts = Counter(row.outcome for row in reviewed)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def alike(first: str, second: str) -> float:
    """0 to 1: how alike two texts are, word by word, whatever their case."""
    words = [text.lower().split() for text in (first, second)]
    return difflib.SequenceMatcher(None, *words, autojunk=False).ratio()


def _first_outcome(text: str, score: float, settings: ConscienceSettings) -> str:
    """The outcome that the first review settles, or "" where a correction is due."""
    if not text.strip():
        return "dropped_empty"
    if not np.isfinite(score):
        return "dropped_not_finite"
    if settings.gate == "score" and score >= settings.threshold:
        return "approved"
    return ""


def _with_critiques(model, params, chat, settings, found, rows, key) -> list[Reviewed]:
    review = settings.review
    critiques = write_critiques(
        model,
        params,
        chat,
        review.layout,
        [found[i].prompt for i in rows],
        [found[i].candidate for i in rows],
        jax.random.fold_in(key, 1 << 16),
        _sampler(chat, settings),
        batch_size=review.batch_size,
        max_tokens=review.max_tokens,
    )
    named = dict(zip(rows, critiques))
    return [replace(row, critique=named.get(i, "")) for i, row in enumerate(found)]


def _sampler(chat: Chat, settings: ConscienceSettings):
    return sampler_settings(
        chat.end_tokens,
        settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )


def _attempt(model, params, chat, settings, link, found, rows, key) -> list[Attempt]:
    """One link for the open rows: write, sort out what needs no review, review the rest."""
    review = settings.review
    prompts = [found[i].prompt for i in rows]
    candidates = [found[i].candidate for i in rows]
    answers = write_corrections(
        model,
        params,
        chat,
        link,
        review.layout,
        prompts,
        candidates,
        [found[i].critique for i in rows],
        key,
        _sampler(chat, settings),
        batch_size=review.batch_size,
        max_tokens=review.max_tokens,
    )
    reasons = [
        _reason_before_review(answer, candidate, settings)
        for answer, candidate in zip(answers, candidates)
    ]
    reviewed = [i for i, reason in enumerate(reasons) if not reason]
    second = np.full(len(rows), np.nan, np.float32)
    if reviewed:
        second[reviewed] = scores(
            model,
            params,
            chat,
            review,
            [prompts[i] for i in reviewed],
            [answers[i].text for i in reviewed],
        )
    for i in reviewed:
        reasons[i] = _reason_after_review(float(second[i]), found[rows[i]].score, settings)
    return [
        Attempt(link, answer, float(score), reason)
        for answer, score, reason in zip(answers, second, reasons)
    ]


def _reason_before_review(answer: Answer, candidate: str, settings: ConscienceSettings) -> str:
    if not answer.text.strip():
        return "empty"
    if not np.isfinite(answer.log_probs).all():
        return "not_finite"
    if len(answer.tokens) > settings.max_response:
        return "too_long"
    if not answer.ended and not settings.keep_truncated:
        return "truncated"
    return "identical" if alike(answer.text, candidate) >= settings.similarity else ""


def _reason_after_review(score: float, candidate_score: float, settings) -> str:
    if not np.isfinite(score):
        return "not_finite"
    bar = settings.threshold if settings.gate == "score" else candidate_score
    passed = score >= bar + settings.margin and (settings.gate == "score" or score > bar)
    return "" if passed else "disapproved"
