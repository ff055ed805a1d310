"""Listening, whichever application it is for: the policy of a step answers prompts, the frozen copy
reviews and corrects, and pairs come of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from emergent_alignment.conscience.hearing import Reviewer
from emergent_alignment.conscience.journal_records import journal_record
from emergent_alignment.conscience.pairs import ConscienceSettings, Reviewed, review_and_revise
from emergent_alignment.conscience.policy_links import Ranked, WrittenByPolicy, rank_samples
from emergent_alignment.conscience.revise import FORK_LINKS
from emergent_alignment.data.batches import Pair
from emergent_alignment.data.chat import Chat
from emergent_alignment.generation.text import Answer, beginning_of
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.stopping import between_phases
from emergent_alignment.randomness import Draws, Purpose, key_for
from emergent_alignment.runs.forking import Forking
from emergent_alignment.runs.from_config import candidate_sampler
from emergent_alignment.runs.listening_scalars import listening_scalars
from emergent_alignment.runs.step_policy import OwnPrompts, StepPolicy, sampled
from emergent_alignment.runs.training_run import Run

# (rows of the data, their reviews) → the reviews that count: an application may spare candidates.
Settle = Callable[[list[int], list[Reviewed]], list[Reviewed]]


def as_they_are(rows: list[int], reviewed: list[Reviewed]) -> list[Reviewed]:
    """Every review counts."""
    return reviewed


@dataclass(frozen=True)
class Heard:
    """What came of a step's prompts: a pair or none for each, the reviews, records of the journal,
    scalars over all hosts' rows, and the scores of everything that was sampled here."""

    pairs: list[Pair | None]
    reviewed: list[Reviewed]
    records: list[dict]
    scalars: dict[str, float]
    scores: list[float]

    def some(self, places: Int[np.ndarray, "rows"]) -> "Heard":
        """Of these rows alone; the scalars stay those of all."""
        pairs, reviewed, records = (
            [values[i] for i in places] for values in (self.pairs, self.reviewed, self.records)
        )
        return replace(self, pairs=pairs, reviewed=reviewed, records=records)


NOTHING_HEARD = Heard([], [], [], {}, [])


def hear_policy(
    run: Run,
    reviewer: Reviewer,
    conscience: ConscienceSettings,
    asked: OwnPrompts,
    step: int,
    trainable: Any,
    settle: Settle = as_they_are,
) -> Heard:
    """The conscience's part of one step, over the prompts that this host holds. The pairs bring
    their reference log-probs: the frozen copy's, or those of the policy that wrote them
    (config.loss.reference)."""
    policy, fresh = StepPolicy(run, conscience, asked, step, trainable), None
    if run.rollouts is not None and run.rollouts.has_base:
        conscience = replace(conscience, one_batch=False)  # nothing is written beside rewrites
        fresh = policy.fresh_answers
    candidates, ranked = _candidates(run, reviewer, conscience, asked, step, policy)
    between_phases()
    with run.clock.part("review"):
        reviewed = review_and_revise(
            reviewer,
            conscience,
            asked.messages,
            candidates,
            Draws(run.config.seed, Purpose.CORRECTIONS, step),
            row_ids=asked.places,
            with_reference=True,
            policy=WrittenByPolicy(
                policy.answers_again, Forking(policy, reviewer, candidates).forks, ranked, fresh
            ),
        )
        reviewed = settle(asked.rows.tolist(), reviewed)
        rejected = rejected_of(reviewed, candidates, run.setup.chat, conscience)
        pairs = pairs_of(reviewed, rejected)
        if run.config.loss.reference == "policy":
            pairs = policy.with_own_reference(pairs, reviewed, rejected)
    records = [
        journal_record(review, step=step, place=int(place), row=int(row))
        for review, place, row in zip(reviewed, asked.places, asked.rows)
    ]
    scores = [score for one in ranked for score in one.scores] if ranked else None
    scores = scores or [review.score for review in reviewed]
    scalars = listening_scalars(reviewed, candidates, rejected, scores, conscience)
    if run.rollouts is not None:
        scalars |= run.rollouts.scalars(step)
    return Heard(pairs, reviewed, records, scalars, scores)


def rejected_of(
    reviewed: list[Reviewed], candidates: list[Answer], chat: Chat, conscience: ConscienceSettings
) -> list[Answer]:
    """What of each candidate a pair rejects: all of it, or where its correction is a phrase at its
    turn, its beginning of the same length."""
    if conscience.cuts != "turn":
        return candidates
    return [
        beginning_of(candidate, len(review.chosen.tokens), chat)
        if review.chosen and review.attempts[-1].link in FORK_LINKS
        else candidate
        for review, candidate in zip(reviewed, candidates)
    ]


def pairs_of(reviewed: list[Reviewed], candidates: list[Answer]) -> list[Pair | None]:
    """The correction over the candidate, where one was taken."""
    return [
        Pair(review.chosen.tokens, candidate.tokens, review.reference) if review.chosen else None
        for review, candidate in zip(reviewed, candidates)
    ]


def _candidates(run, reviewer, conscience, asked: OwnPrompts, step: int, policy: "StepPolicy"):
    """(candidates, the ranks of several samples where the chain has `best`). Where verdicts are
    drawn by chance, any two samples stand for the worst and the best."""
    if "best" not in conscience.chain:
        return policy.answers(), None
    samples = policy.several()
    if conscience.chance:
        return [of_prompt[0] for of_prompt in samples], [
            Ranked(of_prompt[0], of_prompt[1], None, None, []) for of_prompt in samples
        ]
    draws = Draws(run.config.seed, Purpose.SAMPLES, step)
    with run.clock.part("review"):
        ranked = rank_samples(reviewer, conscience, asked.messages, samples, draws, asked.places)
    return [one.worst for one in ranked], ranked


def frozen_scores(
    run: Run,
    reviewer: Reviewer,
    conscience: ConscienceSettings,
    frozen: Model,
    asked: OwnPrompts,
    step: int,
    purpose: Purpose = Purpose.YARDSTICK,
) -> list[float]:
    """What the reviewer scores a frozen model's own answers to this host's prompts."""
    key = key_for(run.config.seed, purpose, step)
    sampler = candidate_sampler(run.config, run.setup.chat)
    with run.clock.part("sampling"):
        answers = sampled(run, frozen.params, asked.prompts, asked.places, key, sampler)
    draws = Draws(run.config.seed, purpose, step)
    with run.clock.part("review"):
        samples = [[answer] for answer in answers]
        ranked = rank_samples(reviewer, conscience, asked.messages, samples, draws, asked.places)
    return [one.scores[0] for one in ranked]
