"""What a run listens to, round by round: prompts of the task, of a pool of their own, or both;
reviewed every so many steps, and trained on in several."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax.sharding import Mesh

from emergent_alignment.conscience.form import has_form
from emergent_alignment.conscience.hearing import Reviewer
from emergent_alignment.conscience.pairs import ConscienceSettings, Reviewed
from emergent_alignment.data.batches import Batch, bucket, joined_rows, order_seed, rows_of_step
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.data.pools import pool_prompts
from emergent_alignment.errors import UserError
from emergent_alignment.intervals import auc
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.hosts import gather, rows_of_all_hosts
from emergent_alignment.parallel.mesh import current_mesh
from emergent_alignment.parallel.rows import held_rows, own_rows
from emergent_alignment.parallel.sharding import num_shards
from emergent_alignment.runs.config import RunConfig, has_own_level, has_price
from emergent_alignment.runs.from_config import evaluation_examples
from emergent_alignment.runs.listening import (
    Heard,
    OwnPrompts,
    Settle,
    as_they_are,
    frozen_scores,
    hear_policy,
)
from emergent_alignment.runs.price import price
from emergent_alignment.runs.rounds import HeardRow, Rounds, Timing, doubled_width
from emergent_alignment.runs.training_run import Run, hybrid_terms, pair_terms
from emergent_alignment.runs.yardstick import RoundScores, own_level, wants_yardstick
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.task_and_pairs import PairsView, TaskAndPairsView
from emergent_alignment.training.terms import PreferenceTerm

TASK, POOL = "task", "pool"  # kinds of records, where there is a pool
_WIDTH_STEP = 8
_POOL_ORDER = 1 << 16  # what its order is seeded with, beside the run's seed; buckets have 0, 1, …


@dataclass(frozen=True)
class PromptsOfStep:
    """Prompts of all hosts: conversations, their tokens, their numbers in the data."""

    messages: list[list[Message]]
    tokens: list[list[int]]
    rows: list[int]

    def __add__(self, other: "PromptsOfStep") -> "PromptsOfStep":
        return PromptsOfStep(
            [*self.messages, *other.messages],
            [*self.tokens, *other.tokens],
            [*self.rows, *other.rows],
        )

    def some(self, places: list[int]) -> "PromptsOfStep":
        """Those at these places."""
        messages, tokens = ([values[i] for i in places] for values in (self.messages, self.tokens))
        return PromptsOfStep(messages, tokens, [self.rows[i] for i in places])


NO_PROMPTS = PromptsOfStep([], [], [])


@dataclass(frozen=True)
class Ears:
    """Who reviews, how it decides, and the frozen model whose own answers are the yardstick."""

    reviewer: Reviewer
    conscience: ConscienceSettings
    frozen: Model


def listens_apart(config: RunConfig) -> bool:
    """Whether pairs have rows of their own, apart from the task's."""
    conscience = config.conscience
    return conscience.enabled and (
        conscience.prompts != "task"
        or conscience.every > 1
        or conscience.replay > 1
        or bool(config.data.preferences)
    )


def heard_size(config: RunConfig, num_task: int) -> int:
    """Prompts a round, where a step has `num_task` of the task."""
    conscience = config.conscience
    own = num_task if conscience.prompts != "pool" else 0
    size = own + (conscience.pool_rows if conscience.prompts != "task" else 0)
    return size * conscience.steps_a_round


def heard_rows(config: RunConfig, num_task: int) -> int:
    """Rows a step that were listened to, in this round or in those before it."""
    conscience = config.conscience
    share = heard_size(config, num_task) // conscience.steps_a_round
    return share * max(conscience.replay // conscience.every, 1)


def check_heard(config: RunConfig, mesh: Mesh | None, num_task: int) -> None:
    """Raise UserError where the mesh does not cut the prompts of a round, or the rows of a step
    that were listened to, evenly, microbatch by microbatch."""
    if not config.conscience.enabled or config.conscience.prompts == "task":
        return
    shards = num_shards(mesh, "batch")
    unit, rows = shards * config.training.accumulation, heard_rows(config, num_task)
    size = heard_size(config, num_task)
    if size % shards or rows % unit:
        raise UserError(
            f"config.conscience.pool_rows: {size} prompts a round, and {rows} rows a step that "
            f"were listened to, cannot be cut into {shards} shards × "
            f"{config.training.accumulation} microbatches; set a multiple of {unit}"
        )


def read_pool(config: RunConfig, chat: Chat) -> PromptsOfStep:
    """The pool that a config listens to; nothing where it listens to the task's prompts alone.
    Raises UserError where it cannot be read."""
    if not config.conscience.enabled or config.conscience.prompts == "task":
        return NO_PROMPTS
    messages, most = pool_prompts(config.conscience.pool), config.data.max_prompt_tokens
    _check_apart(config, messages)
    tokens = [chat.prompt_tokens(prompt)[-most:] for prompt in messages]
    return PromptsOfStep(messages, tokens, list(range(len(messages))))


def _check_apart(config: RunConfig, messages: list[list[Message]]) -> None:
    """Raise UserError where prompts of the pool are also evaluated on: which, and how many."""
    try:
        evaluated = evaluation_examples(config.data, 0, whole=True)
    except UserError:  # nothing is held out
        return
    held = {_plainly(example.messages) for example in evaluated}
    shared = [prompt for prompt in messages if _plainly(prompt) in held]
    if shared:
        raise UserError(
            f"config.conscience.pool: {len(shared)} of its {len(messages)} prompts are also in "
            f"{config.data.evaluation}, which is evaluated on, as {shared[0][-1]['content']!r}; "
            "take them out, or evaluate on others"
        )


def _plainly(messages: list[Message]) -> str:
    """What is asked, whatever its case and spaces."""
    return " ".join(" ".join(one["content"] for one in messages).casefold().split())


def prompt_objective(config: RunConfig) -> Objective | None:
    """What a step over prompts minimises: of pairs alone what the hybrid loss has of them; None:
    the hybrid loss of rows that share the prompt with their pairs."""
    if config.data.preferences and not config.data.train:
        return Objective(pair_terms(config.loss), PairsView)
    if not listens_apart(config) and not config.data.preferences:
        return None
    return Objective(hybrid_terms(config.loss), TaskAndPairsView)


def check_form(config: RunConfig, targets: list[str]) -> None:
    """Raise UserError where no target has the form that corrections are to keep."""
    check = config.conscience.keeps
    if config.conscience.enabled and check and not any(has_form(check, text) for text in targets):
        raise UserError(
            f"config.conscience.keeps: none of the {len(targets)} targets of {config.data.train} "
            f"has this form: {check!r}; is it the right one?"
        )


class Listening:
    """The rounds of a run whose steps have `num_task` prompts of the task, and perhaps pairs that
    are `given`, by step."""

    def __init__(
        self,
        run: Run,
        num_task: int,
        pool: PromptsOfStep = NO_PROMPTS,
        given: Callable[[int], Batch] | None = None,
    ):
        self._run, self._pool, self._given = run, pool, given
        conscience = run.config.conscience
        self._rounds = None
        if listens_apart(run.config) or has_price(run.config) or has_own_level(run.config):
            size, shares = heard_size(run.config, num_task), conscience.steps_a_round
            timing = Timing(conscience.every, conscience.replay or conscience.every, shares)
            self._rounds = Rounds(run.workdir, run.first_step, timing, size)

    def due(self, step: int) -> bool:
        """Whether a step makes a round."""
        return step % self._run.config.conscience.every == 0

    def steps_of_round(self, step: int) -> range:
        """The steps to whose prompts the round of a step listens."""
        return range(step, step + self._run.config.conscience.steps_a_round)

    def hear(
        self,
        ears: Ears,
        task: PromptsOfStep,
        step: int,
        trainable: Any,
        settle: Settle = as_they_are,
    ) -> Heard:
        """The round of a step: its prompts of the task (those of `steps_of_round`), of the pool, or
        both. Hosts whose reviewers
        come to the same hold all rows meanwhile, so that none need be asked about its own; of a
        server that samples, each asks for its own."""
        if self._run.rollouts is not None or not ears.reviewer.is_same_everywhere:
            return self._hear(ears, task, step, trainable, settle)
        with rows_of_all_hosts():
            heard = self._hear(ears, task, step, trainable, settle)
        return heard.some(own_rows(len(heard.records)))

    def _hear(
        self, ears: Ears, task: PromptsOfStep, step: int, trainable: Any, settle: Settle
    ) -> Heard:
        asked = self._asked(task, step)
        num_task = int((asked.places < len(task.rows)).sum()) if self._of_task else 0

        def settle_task(rows: list[int], reviewed: list[Reviewed]) -> list[Reviewed]:
            settled = settle(rows[:num_task], reviewed[:num_task]) if num_task else []
            return [*settled, *reviewed[num_task:]]

        yardstick = self._yardstick(ears, asked, step)
        heard = hear_policy(
            self._run,
            ears.reviewer,
            self._levelled(ears.conscience, yardstick),
            asked,
            step,
            trainable,
            settle_task,
        )
        measured = None
        if self._rounds is not None or yardstick:
            measured = RoundScores(finite_anywhere(heard.scores), yardstick)
        if yardstick and measured.scores:
            heard = replace(heard, scalars=heard.scalars | yardstick_scalars(measured))
        if self._rounds is not None:
            rows = [HeardRow(*row) for row in zip(asked.prompts, heard.pairs)]
            self._rounds.add(step, rows, asked.places, measured)
        if self._pool.rows:
            kinds = [TASK] * num_task + [POOL] * (len(heard.records) - num_task)
            records = [r | {"kind": kind} for r, kind in zip(heard.records, kinds)]
            heard = replace(heard, records=records)
        return heard

    def batch(self, step: int) -> Batch:
        """The rows of a step that were listened to, in this round or in those before it, and the
        given pairs behind them."""
        config = self._run.config
        longest = config.data.max_prompt_tokens
        width = doubled_width(config.data.bucket_tokens, bucket(longest, _WIDTH_STEP, 1 << 30))
        room = bucket(config.sampling.max_new_tokens, _WIDTH_STEP, 1 << 30)
        unit = num_shards(current_mesh(), "batch") * config.training.accumulation
        heard = self._rounds.batch(step, room, width, unit)
        return joined_rows(heard, self._given(step)) if self._given else heard

    def weights(self) -> dict[str, float] | None:
        """λ after the rounds so far, where it is moved."""
        if not has_price(self._run.config):
            return None
        weight = price(self._rounds.measured, self._run.config.loss.price)
        return {PreferenceTerm.name: weight}

    @property
    def _of_task(self) -> bool:
        return self._run.config.conscience.prompts != "pool"

    def _asked(self, task: PromptsOfStep, step: int) -> OwnPrompts:
        conscience, prompts = self._run.config.conscience, task if self._of_task else NO_PROMPTS
        if self._pool.rows:
            seed = order_seed(self._run.config.seed, _POOL_ORDER)
            shares = conscience.steps_a_round
            first = step // conscience.every * shares
            for number in range(first, first + shares):
                drawn = rows_of_step(len(self._pool.rows), conscience.pool_rows, seed, number)
                prompts = prompts + self._pool.some(drawn.tolist())
        places = held_rows(len(prompts.rows))
        own = prompts.some(places.tolist())
        return OwnPrompts(own.messages, own.tokens, places, np.array(own.rows))

    def _levelled(
        self, conscience: ConscienceSettings, yardstick: list[float]
    ) -> ConscienceSettings:
        """The settings with the threshold of gate=own, by all that the frozen copy has answered so
        far."""
        config = self._run.config
        if not has_own_level(config):
            return conscience
        known = [score for measured in self._rounds.measured for score in measured.yardstick]
        level = own_level([*known, *yardstick], config.conscience.own_flags)
        return replace(conscience, threshold=level)

    def _yardstick(self, ears: Ears, asked: OwnPrompts, step: int) -> list[float]:
        """The scores of the frozen copy's own answers to the same prompts, of all hosts, where
        they are due."""
        config = self._run.config
        every = config.conscience.yardstick_every
        due = bool(every) and (step // config.conscience.every) % every == 0
        if has_price(config):
            due |= wants_yardstick(self._rounds.measured, config.loss.price.yardstick)
        if has_own_level(config):
            due |= wants_yardstick(self._rounds.measured, config.conscience.own_answers)
        if not due:
            return []
        scores = frozen_scores(self._run, ears.reviewer, ears.conscience, ears.frozen, asked, step)
        return finite_anywhere(scores)


def yardstick_scalars(measured: RoundScores) -> dict[str, float]:
    """The frozen copy's mean score, and how often it scores an answer of its own above one of the
    policy's (AUC): near ½ it sees no difference between what both write now."""
    return {
        "score/frozen": float(np.mean(measured.yardstick)),
        "conscience/auc_current": auc(measured.yardstick, measured.scores),
    }


def finite_anywhere(scores: list[float]) -> list[float]:
    """The scores of all hosts that are numbers."""
    values = gather(np.array(scores, np.float32)).reshape(-1)
    return [float(value) for value in values if np.isfinite(value)]
