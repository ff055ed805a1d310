"""What a step is fed: task rows alone, or rows with the conscience's pairs.

Candidates come from the policy (reviewed at every step), are the data set's targets (reviewed
once, see reviewed_targets.py), or both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

import numpy as np
from jaxtyping import Int

from emergent_alignment.conscience.chance import reviewer_of
from emergent_alignment.conscience.pairs import ConscienceSettings
from emergent_alignment.conscience.settings import OnFlagged
from emergent_alignment.data.batches import Batch, Pair, make_batch
from emergent_alignment.data.buckets import Schedule, choose_buckets
from emergent_alignment.data.messages import Message
from emergent_alignment.data.mixing import MixedSchedule
from emergent_alignment.data.tokenized import Tokenized
from emergent_alignment.parallel.hosts import gather
from emergent_alignment.parallel.rows import own_rows
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.listening import NOTHING_HEARD, Settle, as_they_are
from emergent_alignment.runs.listening_inputs import (
    NO_PROMPTS,
    Ears,
    Listening,
    PromptsOfStep,
    listens_apart,
)
from emergent_alignment.runs.listening_scalars import outcome_scalars
from emergent_alignment.runs.training_run import Run
from emergent_alignment.training.loop import MakeInput, StepInput
from emergent_alignment.training.task_and_pairs import TaskAndPairs

# Branches of a row whose target is the candidate: what is the same answer is computed once.
TARGET_ROLES = {"keep": "target is rejected", "mask": "separate", "replace": "target is chosen"}


def schedule_of(config: RunConfig, tokenized: list[Tokenized]) -> Schedule:
    """Which rows each step takes, and in which shape. Candidates and corrections may be as long
    as the sampler lets them."""
    conscience, written = config.conscience, config.sampling.max_new_tokens
    num_written = 1 if conscience.candidate == "target" else 2
    num_written *= conscience.enabled and not listens_apart(config)
    buckets = choose_buckets(
        np.array([len(row.prompt) for row in tokenized]),
        np.array([[len(row.target)] + [written] * num_written for row in tokenized]),
        max_buckets=isqrt(config.data.buckets) if config.data.preferences else config.data.buckets,
        min_rows=config.training.batch_size,
    )
    return Schedule(buckets, config.training.batch_size, config.seed)


def plain_inputs(
    schedule: Schedule, tokenized: list[Tokenized], given: Callable[[int], Batch] | None = None
) -> MakeInput:
    """Task rows, alone or beside `given` pairs."""

    def make_input(step: int, trainable: Any) -> StepInput:
        _, rows, shape = _own_rows_of_step(schedule, step)
        batch = _batch(tokenized, rows, shape, [])
        return StepInput(TaskAndPairs(batch, given(step)) if given else batch, [], {})

    return make_input


def given_inputs(given: Callable[[int], Batch]) -> MakeInput:
    """Given pairs alone."""
    return lambda step, trainable: StepInput(given(step), [], {})


def pool_inputs(run: Run, listening: Listening) -> MakeInput:
    """The pairs of a pool that is listened to, and those that are given; there is no task."""
    ears = _ears(run)

    def make_input(step: int, trainable: Any) -> StepInput:
        heard = NOTHING_HEARD
        if listening.due(step):
            heard = listening.hear(ears, NO_PROMPTS, step, trainable)
        batch = listening.batch(step)
        return StepInput(batch, heard.records, heard.scalars, listening.weights())

    return make_input


@dataclass(frozen=True)
class ReviewedTargets:
    """The data set's own targets, `reviewed` once before the first step (by row: see
    reviewed_targets.py), and what the task learns of those that are flagged: `keep` them, `mask`
    them, or `replace` them with the correction (with nothing where there is none)."""

    conscience: ConscienceSettings
    tokenized: list[Tokenized]
    reviewed: dict[int, dict]
    on_flagged: OnFlagged = "keep"

    def pairs(self, rows: Sequence[int]) -> list[Pair | None]:
        """The correction over the target, where there is one."""
        return [
            Pair(record["chosen"], self.tokenized[row].target, tuple(record["reference"]))
            if record["chosen"]
            else None
            for record, row in ((self.reviewed[int(row)], row) for row in rows)
        ]

    def learnt(self, rows: Sequence[int]) -> list[list[int]]:
        """What the task learns of each row; nothing is no tokens."""
        targets = []
        for row in map(int, rows):
            record, target = self.reviewed[row], self.tokenized[row].target
            if self.on_flagged != "keep" and self._is_flagged(record):
                target = (record["chosen"] or []) if self.on_flagged == "replace" else []
            targets.append(target)
        return targets

    def scalars(self, rows: Sequence[int]) -> dict[str, float]:
        """Flag rate, scores and outcome counts of these rows' targets, and the share learnt."""
        journals = [self.reviewed[int(row)]["journal"] for row in rows]
        scalars = outcome_scalars(
            [journal["outcome"] for journal in journals],
            [journal["candidate_score"] for journal in journals],
            [journal["revision_score"] for journal in journals],
            self.conscience.threshold,
        )
        learnt = gather(np.array([bool(tokens) for tokens in self.learnt(rows)], np.float32))
        return scalars | {"learnt_rate": float(learnt.mean())}

    def _is_flagged(self, record: dict) -> bool:
        """Below the threshold; with the relative gate, where a better answer was found."""
        if self.conscience.gate == "relative":
            return record["chosen"] is not None
        return record["journal"]["outcome"] != "approved"


@dataclass(frozen=True)
class PromptRows:
    """What steps take rows from: the `schedule` says which, and in which shape; `prompts` are their
    conversations, `tokenized` the same with their targets."""

    schedule: Schedule | MixedSchedule
    prompts: list[list[Message]]
    tokenized: list[Tokenized]

    def some(self, rows: Int[np.ndarray, "rows"]) -> PromptsOfStep:
        """The prompts of these rows."""
        return PromptsOfStep(
            [self.prompts[row] for row in rows],
            [self.tokenized[row].prompt for row in rows],
            rows.tolist(),
        )


def policy_inputs(
    run: Run,
    asked: PromptRows,
    listening: Listening,
    *,
    settle: Settle = as_they_are,
    targets: ReviewedTargets | None = None,
) -> MakeInput:
    """Online: the policy of this very step answers, the frozen copy reviews and corrects, and
    what it read for that gives the pairs' reference log-probs.

    With `targets` a row whose target is flagged and corrected has that pair instead. Where pairs
    outlive their step, or come of other prompts, they have rows of their own; else a row shares
    its prompt with its pair.
    """
    tokenized, ears = asked.tokenized, _ears(run)

    def make_input(step: int, trainable: Any) -> StepInput:
        rows, shape = asked.schedule.rows_of_step(step)
        own, heard = rows[own_rows(len(rows))], NOTHING_HEARD
        if listening.due(step):
            steps = listening.steps_of_round(step)
            ahead = np.concatenate([asked.schedule.rows_of_step(at)[0] for at in steps])
            heard = listening.hear(ears, asked.some(ahead), step, trainable, settle)
        if listens_apart(run.config):
            batch = TaskAndPairs(_batch(tokenized, own, shape, []), listening.batch(step))
        elif targets is None:
            batch = _batch(tokenized, own, shape, heard.pairs)
        else:
            told = {f"targets/{key}": value for key, value in targets.scalars(own).items()}
            heard = replace(heard, scalars=heard.scalars | told)
            pairs = [given or other for given, other in zip(targets.pairs(own), heard.pairs)]
            batch = _batch(tokenized, own, shape, pairs, learnt=targets.learnt(own))
        return StepInput(batch, heard.records, heard.scalars, listening.weights())

    return make_input


def _ears(run: Run) -> Ears:
    model, conscience = run.setup.model, run.conscience
    return Ears(reviewer_of(model, run.setup.chat, conscience), conscience, model)


def target_inputs(schedule: Schedule, targets: ReviewedTargets) -> MakeInput:
    """The data set's targets as candidates."""

    def make_input(step: int, trainable: Any) -> StepInput:
        _, rows, shape = _own_rows_of_step(schedule, step)
        pairs, learnt = targets.pairs(rows), targets.learnt(rows)
        roles = TARGET_ROLES[targets.on_flagged]
        batch = _batch(targets.tokenized, rows, shape, pairs, roles, learnt=learnt)
        return StepInput(batch, [], targets.scalars(rows))

    return make_input


def rows_to_train_on(config: RunConfig, schedule: Schedule) -> list[int]:
    """Every row that the run's steps will see, each once."""
    total = sum(members.size for members in schedule.buckets.members)
    seen: set[int] = set()
    for step in range(config.training.steps):
        seen.update(schedule.rows_of_step(step)[0].tolist())
        if len(seen) == total:
            break
    return sorted(seen)


def _own_rows_of_step(schedule: Schedule, step: int):
    """This host's part of a step: the rows' places in the whole batch, their indices in the
    data, and the shape of the batch."""
    rows, shape = schedule.rows_of_step(step)
    places = own_rows(len(rows))
    return places, rows[places], shape


def _batch(tokenized, rows, shape, pairs, roles="separate", *, learnt=None):
    return make_batch(
        [tokenized[row].prompt for row in rows],
        learnt or [tokenized[row].target for row in rows],
        pairs,
        prompt_width=shape[0],
        branch_width=shape[1],
        roles=roles,
        with_reference=bool(pairs),
    )
