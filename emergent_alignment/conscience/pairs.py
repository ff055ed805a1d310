"""From candidates to pairs: review, correct, review again, and one outcome for each.

Every candidate ends in exactly one outcome, and the counts add up to the candidates.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from emergent_alignment.conscience.hearing import Corrections, Hearing, Reviewer, Score, ScoredBy
from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.conscience.policy_links import Against, PolicyLinks
from emergent_alignment.conscience.principles import drawn_principles
from emergent_alignment.conscience.reasons import reason_after_review, reason_before_review
from emergent_alignment.conscience.revise import POLICY_LINKS, Link
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.messages import Message
from emergent_alignment.data.principles import Principle
from emergent_alignment.generation.text import Answer
from emergent_alignment.parallel.hosts import anywhere
from emergent_alignment.parallel.stopping import go_on_anywhere
from emergent_alignment.randomness import Draws


@dataclass(frozen=True)
class Attempt:
    """One correction: the link that wrote it, the answer, its score (NaN: never reviewed), why
    it was not taken ("" if it was), log P(answer | prompt) where writing it gave it, and how the
    reviewer failed where it did."""

    link: Link
    answer: Answer
    score: float
    reason: str
    log_prob: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Reviewed:
    """What became of one candidate: its score, its outcome, the attempts to correct it; of a
    pair, if asked for, the frozen copy's log-probs of (chosen, candidate); what the score was read
    from, or how the reviewer failed to give one; and the name of the principle that the critique
    was asked for by."""

    prompt: list[Message]
    candidate: str
    score: float
    outcome: str
    critique: str = ""
    attempts: tuple[Attempt, ...] = ()
    reference: tuple[float, float] | None = None
    scored_by: ScoredBy = "logits"
    failure: str = ""
    principle: str = ""

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
    reviewer: Reviewer,
    settings: ConscienceSettings,
    prompts: list[list[Message]],
    candidates: list[Answer],
    draws: Draws,
    *,
    row_ids: list[int] | None = None,
    with_reference: bool = False,
    policy: PolicyLinks | None = None,
) -> list[Reviewed]:
    """The conscience step for a list of candidates.

    A row draws from `draws` and its id (by default its place), whatever the rows beside it.
    `with_reference` gives each pair its reference log-probs. `policy` writes what the chain asks
    of it. Raises ValueError where the chain asks it and there is none.
    """
    if policy is None and set(settings.chain) & set(POLICY_LINKS):
        raise ValueError(f"the chain {settings.chain} asks a policy for corrections: there is none")
    ids = np.arange(len(prompts)) if row_ids is None else np.array(row_ids)
    principles = drawn_principles(settings.principles, draws, ids)
    order = list(range(len(prompts)))
    if len(order) > reviewer.batch_size:  # rows of like length together: little is padded
        order.sort(key=lambda i: len(str(prompts[i])))
    reviewed: dict[int, Reviewed] = {}
    for start in range(0, len(order), reviewer.batch_size):
        rows = order[start : start + reviewer.batch_size]
        messages, answers = [prompts[i] for i in rows], [candidates[i] for i in rows]
        hearing = reviewer.hear(settings, messages, answers, draws, ids[rows])
        scores = policy.candidate_scores if policy else None
        known = [scores[i] for i in rows] if scores else hearing.scores()
        begun = [
            _first_verdict(prompt, answer, score, settings)
            for prompt, answer, score in zip(messages, answers, known)
        ]
        chunk = _Chunk(hearing, settings, policy, rows, [principles[i] for i in rows])
        for i, row in zip(rows, chunk.corrected(begun)):
            reviewed[i] = row
        if with_reference:
            for i, row in zip(rows, _with_reference(hearing, [reviewed[i] for i in rows])):
                reviewed[i] = row
    return [reviewed[i] for i in range(len(prompts))]


@dataclass(frozen=True)
class _Chunk:
    """One batch of rows, of those that `policy` knows the numbers of, and their principles."""

    hearing: Hearing
    settings: ConscienceSettings
    policy: PolicyLinks | None
    rows: list[int]
    principles: list[Principle]

    def corrected(self, reviewed: list[Reviewed]) -> list[Reviewed]:
        """What becomes of them after their first verdict, but for the reference."""
        critiques = [""] * len(reviewed)
        if self.settings.critique and anywhere(any(_open(reviewed))):
            texts = [principle.text for principle in self.principles]
            critiques = self.hearing.critiques(_open(reviewed), texts)
            reviewed = [
                row if row.outcome else replace(row, critique=text, principle=principle.name)
                for row, text, principle in zip(reviewed, critiques, self.principles)
            ]
        for place, link in enumerate(self.settings.chain):
            live = _open(reviewed)
            if not go_on_anywhere(any(live)):
                break
            written, scores, against = self._written(link, place, critiques, live, reviewed)
            attempts = self._attempts(link, against, _open(reviewed), written, scores)
            reviewed = [
                _tried(row, attempt) if alive else row
                for row, attempt, alive in zip(reviewed, attempts, live)
            ]
        return [row if row.outcome else _dropped(row) for row in reviewed]

    def _written(
        self,
        link: Link,
        place: int,
        critiques: list[str],
        live: list[bool],
        reviewed: list[Reviewed],
    ):
        """(corrections, their scores where they are known, what they are set against)."""
        against = [Against(row.candidate, row.score) for row in reviewed]
        if self.policy is None or link not in self.policy.links:
            return self.hearing.write(link, place, critiques, live), None, against
        scores = [row.score for row in reviewed]
        written = self.policy.write(link, place, self.rows, live, scores)
        weighed = self.hearing.weigh(written.answers, place)
        return weighed, written.scores, written.against or against

    def _attempts(
        self,
        link: Link,
        against: list[Against],
        live: list[bool],
        written: Corrections,
        known: list[Score] | None,
    ) -> list[Attempt]:
        """The corrections of one link: those that need no review are sorted out, the rest
        reviewed. Of rows that are settled they mean nothing."""
        reasons = [
            "reviewer_failed" if failure else reason_before_review(answer, other, self.settings)
            for answer, failure, other in zip(written.answers, written.failures, against)
        ]
        needed = [alive and not reason for alive, reason in zip(live, reasons)]
        scores = [Score(float("nan"), "", failure) for failure in written.failures]
        if anywhere(any(needed)):
            own = known or self.hearing.scores_of(written, needed)
            scores = [new if need else old for new, old, need in zip(own, scores, needed)]
        attempts = []
        for i, (other, answer, score) in enumerate(zip(against, written.answers, scores)):
            reason = reasons[i] or reason_after_review(score, other, self.settings)
            log_prob = None if written.log_probs is None else float(written.log_probs[i])
            attempts.append(Attempt(link, answer, score.nats, reason, log_prob, score.failure))
        return attempts


def _open(reviewed: list[Reviewed]) -> list[bool]:
    return [not row.outcome for row in reviewed]


def _tried(row: Reviewed, attempt: Attempt) -> Reviewed:
    outcome = "" if attempt.reason else f"revised_{attempt.link}"
    return replace(row, attempts=(*row.attempts, attempt), outcome=outcome)


def _dropped(row: Reviewed) -> Reviewed:
    """Without any link to try, what is flagged stays so."""
    reason = row.attempts[-1].reason if row.attempts else "disapproved"
    return replace(row, outcome=f"dropped_{reason}")


def _with_reference(hearing: Hearing, reviewed: list[Reviewed]) -> list[Reviewed]:
    """Each pair with log P(chosen | prompt) and log P(candidate | prompt) of the frozen copy."""
    paired = [row.chosen is not None for row in reviewed]
    if not anywhere(any(paired)):
        return reviewed
    rejected = hearing.log_probs_of_candidates(paired)
    chosen = [row.attempts[-1].log_prob if pair else None for row, pair in zip(reviewed, paired)]
    unknown = [pair and value is None for value, pair in zip(chosen, paired)]
    if anywhere(any(unknown)):
        computed = hearing.log_probs_of([row.chosen for row in reviewed], unknown)
        chosen = [float(c) if ask else v for c, v, ask in zip(computed, chosen, unknown)]
    return [
        row if value is None else replace(row, reference=(value, float(other)))
        for row, value, other in zip(reviewed, chosen, rejected)
    ]


def count_outcomes(reviewed: list[Reviewed]) -> dict[str, int]:
    """How many candidates ended in each outcome; every outcome is named, also at 0."""
    counts = Counter(row.outcome for row in reviewed)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _first_verdict(prompt, answer: Answer, score: Score, settings) -> Reviewed:
    outcome = _first_outcome(answer.text, score, settings)
    return Reviewed(
        prompt,
        answer.text,
        score.nats,
        outcome,
        scored_by=score.scored_by,
        failure=score.failure,
    )


def _first_outcome(text: str, score: Score, settings: ConscienceSettings) -> str:
    """The outcome that the first review settles, or "" where a correction is due."""
    if not text.strip():
        return "dropped_empty"
    if score.failure:
        return "dropped_reviewer_failed"
    if not np.isfinite(score.nats):
        return "dropped_not_finite"
    if settings.gate != "relative" and not score.nats < settings.threshold:
        return "approved"
    return ""
