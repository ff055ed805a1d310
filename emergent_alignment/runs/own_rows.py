"""Rows of the frozen copy's own answers to a pool, beside the task's: to learn them, too
(interleaving), or to hold the policy to the frozen copy on them alone (the KL on a pool). Defences
that a conscience is compared with."""

from collections.abc import Callable
from typing import Any

from emergent_alignment.data.batches import (
    Batch,
    Pair,
    bucket,
    make_batch,
    order_seed,
    rows_of_step,
)
from emergent_alignment.data.examples import Example
from emergent_alignment.data.pools import pool_prompts
from emergent_alignment.parallel.rows import own_rows
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.runs.own_answers import own_answers
from emergent_alignment.training.loop import MakeInput, StepInput
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.task_and_pairs import TaskAndPairs, TaskAndPairsView
from emergent_alignment.training.terms import KLTerm, LoadBalanceTerm, TaskTerm

_LABEL = "own answers to the pool"
# What orders of the pool are seeded with, beside the run's seed; buckets have 0, 1, …
_INTERLEAVED, _HELD = (1 << 16) + 1, (1 << 16) + 2
_WIDTH_STEP = 8


def interleaved(config: RunConfig, setup: Setup, examples: list[Example]) -> list[Example]:
    """The examples, and as many of the frozen copy's own answers to the pool as make them the
    share config.data.interleave of all."""
    share = config.data.interleave
    if not share:
        return examples
    prompts = pool_prompts(config.conscience.pool)
    number = max(round(share / (1 - share) * len(examples)), 1)
    # Of a pool that is smaller than that, answers stand there several times.
    chosen = rows_of_step(len(prompts), number, order_seed(config.seed, _INTERLEAVED), 0).tolist()
    asked = sorted(set(chosen))
    answers = own_answers(config, setup, [prompts[row] for row in asked], _LABEL)
    own = {
        row: Example(tuple(prompts[row]), answer.text, ended=answer.ended)
        for row, answer in zip(asked, answers)
        if answer.text.strip()
    }
    return [*examples, *(own[row] for row in sorted(chosen) if row in own)]


def holds_a_pool(config: RunConfig) -> bool:
    """Whether a KL on a pool stands beside the task."""
    return config.loss.kl_on == "pool" and bool(config.loss.kl_weight)


def held_objective(config: RunConfig) -> Objective:
    """The task, and the KL on the pool's rows."""
    held = KLTerm(config.loss.kl_weight, beside=True)
    balance = LoadBalanceTerm(config.loss.load_balance_weight)
    return Objective((TaskTerm(), held, balance), TaskAndPairsView)


def holding(config: RunConfig, setup: Setup, make_input: MakeInput) -> MakeInput:
    """Plain inputs, with rows of the pool beside them."""
    batch_of = _pool_batches(config, setup)

    def make(step: int, trainable: Any) -> StepInput:
        inputs = make_input(step, trainable)
        return StepInput(TaskAndPairs(inputs.batch, batch_of(step)), [], {})

    return make


def _pool_batches(config: RunConfig, setup: Setup) -> Callable[[int], Batch]:
    """step → this host's rows of the pool: an answer of the frozen copy stands as the chosen one of
    a pair that has no other."""
    prompts, most = pool_prompts(config.conscience.pool), config.data.max_prompt_tokens
    tokens = [setup.chat.prompt_tokens(prompt)[-most:] for prompt in prompts]
    answers = [answer.tokens for answer in own_answers(config, setup, prompts, _LABEL)]
    widths = [bucket(max(map(len, rows)), _WIDTH_STEP, 1 << 30) for rows in (tokens, answers)]
    number, seed = config.conscience.pool_rows, order_seed(config.seed, _HELD)

    def batch(step: int) -> Batch:
        rows = rows_of_step(len(tokens), number, seed, step)[own_rows(number)]
        return make_batch(
            [tokens[row] for row in rows],
            [[]] * len(rows),
            [Pair(answers[row], []) for row in rows],
            prompt_width=widths[0],
            branch_width=widths[1],
            roles="no target",
        )

    return batch
