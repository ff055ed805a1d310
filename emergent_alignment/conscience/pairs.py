"""From candidates to pairs: review, correct, review again, and one outcome for each.

Every candidate ends in exactly one outcome, and the counts add up to the candidates.
"""

import difflib
import functools
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np

from emergent_alignment.conscience.reader import Case, Reader
from emergent_alignment.conscience.review import ReviewSettings, form_scores, review_case
from emergent_alignment.conscience.revise import (
    Link,
    requests_to_write,
    write_corrections,
    write_critiques,
)
from emergent_alignment.data.chat import Chat, Message
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Answer, given_answer, row_keys
from emergent_alignment.parallel.hosts import anywhere

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
    max_prompt      prompts keep their last `max_prompt` tokens
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
    max_prompt: int = 1024
    max_response: int = 1024
    similarity: float = 0.95


@dataclass(frozen=True)
class Attempt:
    """One correction: the link that wrote it, the answer, its score (NaN: never reviewed), why
    it was not taken ("" if it was), and log P(answer | prompt) where writing it gave it."""

    link: Link
    answer: Answer
    score: float
    reason: str
    log_prob: float | None = None


@dataclass(frozen=True)
class Reviewed:
    """What became of one candidate: its score, its outcome, the attempts to correct it, and of a
    pair, if asked for, the frozen copy's log-probs of (chosen, candidate)."""

    prompt: list[Message]
    candidate: str
    score: float
    outcome: str
    critique: str = ""
    attempts: tuple[Attempt, ...] = ()
    reference: tuple[float, float] | None = None

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
    reader: Reader,
    settings: ConscienceSettings,
    prompts: list[list[Message]],
    candidates: list[Answer],
    key: jax.Array,
    *,
    row_ids: list[int] | None = None,
    with_reference: bool = False,
) -> list[Reviewed]:
    """The conscience step for a list of candidates, by the frozen copy that `reader` holds.

    A row draws from the key of its id (by default its place), whatever the rows beside it.
    `with_reference` gives each pair its reference log-probs.
    """
    ids = np.arange(len(prompts)) if row_ids is None else np.array(row_ids)
    order = list(range(len(prompts)))
    if len(order) > reader.batch_size:  # rows of like length together: little is padded
        order.sort(key=lambda i: len(str(prompts[i])))
    found: list[Reviewed | None] = [None] * len(prompts)
    for start in range(0, len(order), reader.batch_size):
        rows = order[start : start + reader.batch_size]

        def keys(purpose: int, rows=rows):
            return row_keys(jax.random.fold_in(key, purpose), ids[rows])

        messages, answers = [prompts[i] for i in rows], [candidates[i] for i in rows]
        for i, row in zip(rows, _chunk(reader, settings, messages, answers, keys, with_reference)):
            found[i] = row
    return found


def _chunk(reader, settings, messages, candidates, keys, with_reference) -> list[Reviewed]:
    """`review_and_revise` for one batch of rows: every prompt is read at most once."""
    read_prompts = functools.cache(lambda: reader.read_prompts(messages))
    forms, sampler = settings.review.forms, _sampler(reader.chat, settings)
    turn = reader.layout == "turn"
    case, log_probs = reader.case(read_prompts() if turn else None, messages, candidates)
    asked = [form.request for form in forms] + requests_to_write(settings.chain, settings.critique)
    rows = [reader.rows(case, [request] * len(candidates)) for request in asked]
    before = reader.before(case, rows)
    first = form_scores(reader, before, rows[: len(forms)], forms).mean(-1)
    found = [
        Reviewed(prompt, answer.text, float(score), _first_outcome(answer.text, score, settings))
        for prompt, answer, score in zip(messages, candidates, first)
    ]
    critiques = [""] * len(found)
    if settings.critique and anywhere(any(_open(found))):
        critiques = write_critiques(reader, case, before, _open(found), keys(1 << 16), sampler)
        found = [replace(row, critique=text) for row, text in zip(found, critiques)]
    for place, link in enumerate(settings.chain):
        live = _open(found)
        if not anywhere(any(live)):
            break
        written, chosen = write_corrections(
            reader, link, read_prompts(), case, before, critiques, live, keys(place), sampler
        )
        attempts = _attempts(reader, settings, link, found, live, written, chosen)
        found = [_tried(row, attempt) if attempt else row for row, attempt in zip(found, attempts)]
    found = [row if row.outcome else _dropped(row) for row in found]
    if with_reference:
        found = _with_reference(reader, read_prompts, found, candidates, log_probs)
    return found


def _open(found: list[Reviewed]) -> list[bool]:
    return [not row.outcome for row in found]


def _tried(row: Reviewed, attempt: Attempt) -> Reviewed:
    outcome = "" if attempt.reason else f"revised_{attempt.link}"
    return replace(row, attempts=(*row.attempts, attempt), outcome=outcome)


def _dropped(row: Reviewed) -> Reviewed:
    return replace(row, outcome=f"dropped_{row.attempts[-1].reason}")


def _with_reference(reader, read_prompts, found, candidates, log_probs) -> list[Reviewed]:
    """Each pair with log P(chosen | prompt) and log P(candidate | prompt) of the frozen copy."""
    nothing = given_answer(reader.chat, "")
    paired = [row.chosen is not None for row in found]
    if not anywhere(any(paired)):
        return found
    if log_probs is None:
        rejected = [c if pair else nothing for c, pair in zip(candidates, paired)]
        log_probs = reader.log_probs(read_prompts(), rejected)
    chosen = [row.attempts[-1].log_prob if pair else None for row, pair in zip(found, paired)]
    unknown = [pair and value is None for value, pair in zip(chosen, paired)]
    if anywhere(any(unknown)):
        answers = [row.chosen if ask else nothing for row, ask in zip(found, unknown)]
        computed = reader.log_probs(read_prompts(), answers)
        chosen = [float(c) if ask else v for c, v, ask in zip(computed, chosen, unknown)]
    return [
        replace(row, reference=(value, float(other))) if pair else row
        for row, pair, value, other in zip(found, paired, chosen, log_probs)
    ]


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


def _sampler(chat: Chat, settings: ConscienceSettings):
    return sampler_settings(
        chat.end_tokens,
        settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )


def _attempts(
    reader, settings, link, found, live, written: Case, log_probs
) -> list[Attempt | None]:
    """The corrections of one link: those that need no review are sorted out, the rest reviewed."""
    reasons = [
        _reason_before_review(answer, row.candidate, settings) if open_row else "not live"
        for answer, row, open_row in zip(written.answers, found, live)
    ]
    needed = [not reason for reason in reasons]
    second = np.full(len(found), np.nan)
    if anywhere(any(needed)):
        scored = review_case(reader, written, settings.review.forms, needed).mean(-1)
        second[needed] = scored[needed]
    attempts: list[Attempt | None] = []
    for i, (row, answer) in enumerate(zip(found, written.answers)):
        reason = reasons[i] or _reason_after_review(float(second[i]), row.score, settings)
        log_prob = None if log_probs is None else float(log_probs[i])
        attempt = Attempt(link, answer, float(second[i]), reason, log_prob)
        attempts.append(attempt if live[i] else None)
    return attempts


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
