"""Fine-tuning on a task, plainly or with the conscience: the first application."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from emergent_alignment.data.buckets import Schedule
from emergent_alignment.data.examples import Example
from emergent_alignment.data.tokenized import Tokenized, tokenize
from emergent_alignment.data.written_out import written_out
from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first, together
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.from_config import (
    Setup,
    check_positions,
    check_rows,
    conscience_settings,
    data_digits,
    given_pairs,
    load_model,
    training_examples,
)
from emergent_alignment.runs.given_pairs import (
    BatchOfStep,
    check_given,
    check_pair_positions,
    given_batches,
    pair_notes,
    tokenized_pairs,
)
from emergent_alignment.runs.held_out import held_out_examples, in_loop
from emergent_alignment.runs.listening_inputs import (
    POOL,
    Listening,
    PromptsOfStep,
    check_form,
    check_heard,
    prompt_objective,
    read_pool,
)
from emergent_alignment.runs.own_rows import (
    held_objective,
    holding,
    holds_a_pool,
    interleaved,
)
from emergent_alignment.runs.reviewed_targets import reviewed_targets
from emergent_alignment.runs.rollouts import check_server
from emergent_alignment.runs.steering import check_steering, steering_shift
from emergent_alignment.runs.step_inputs import (
    PromptRows,
    ReviewedTargets,
    given_inputs,
    plain_inputs,
    policy_inputs,
    pool_inputs,
    rows_to_train_on,
    schedule_of,
    target_inputs,
)
from emergent_alignment.runs.training_run import Run, Training, train
from emergent_alignment.runs.watched_pairs import watched_examples, watching
from emergent_alignment.runs.workdir import decided_in
from emergent_alignment.settings import check_settings
from emergent_alignment.training.loop import MakeInput
from emergent_alignment.training.state import TrainState

BEFORE_STEPS = -1  # the journal's step of reviews that were made before the first one


def finetune(
    config: RunConfig,
    workdir: Path,
    *,
    setup: Setup | None = None,
    name: str = "training",
    profiled: range = range(0),
) -> TrainState:
    """Train on a task as the config says; see `training_run.train` for what a run is.

    Returns the last state. Raises UserError before anything is trained where the input is not
    right, on every host where it is not right on one, and Stopped where a process was asked to
    stop (the state is saved).
    """
    with together():
        config = decided_in(workdir, config, listens_to=POOL)
        check_settings(config)
        if config.conscience.enabled:
            conscience_settings(config)
        check_server(config)
        examples = training_examples(config)
        given = given_pairs(config)
        digits = data_digits(examples, given.examples)
        setup = setup or load_model(config)
        examples = written_out(examples, setup.chat)
        given = replace(given, examples=written_out(given.examples, setup.chat))
    with in_force(setup.mesh):
        examples = interleaved(config, setup, examples)
    with together():
        check_rows(config, setup.mesh)
        check_heard(config, setup.mesh, config.training.batch_size)
        check_given(config, setup.mesh)
        tokenized = _tokenized(config, setup, examples)
        pairs_given = tokenized_pairs(config, setup.chat, given.examples)
        check_positions(config, setup.model, tokenized)
        check_pair_positions(config, setup.model, pairs_given)
        if examples:
            check_form(config, [example.target for example in examples])
        pool, pairs = read_pool(config, setup.chat), watched_examples(config)
        held_out = written_out(held_out_examples(config), setup.chat)
        check_steering(config.steering, setup.model.config, examples, config.data.train)
    with in_force(setup.mesh):
        towards = config.steering, setup.model, setup.chat, examples, config.data
        steering = steering_shift(*towards)

    def inputs(run: Run) -> MakeInput:
        rows = _Rows(examples, tokenized, pool, given_batches(run, pairs_given))
        return watching(run, _inputs(run, rows), pairs)

    notes = _what_was_cut(config, tokenized) + pair_notes(config, given, pairs_given)
    objective = held_objective(config) if holds_a_pool(config) else prompt_objective(config)
    hooks = functools.partial(in_loop, examples=held_out)
    training = Training(digits, inputs, objective, steering=steering, hooks=hooks, notes=notes)
    return train(config, workdir, setup, training, name=name, profiled=profiled)


@dataclass(frozen=True)
class _Rows:
    """What a run trains on: a task's rows, a pool's prompts, the given pairs of each step."""

    examples: list[Example]
    tokenized: list[Tokenized]
    pool: PromptsOfStep
    given: BatchOfStep | None


def _inputs(run: Run, rows: _Rows) -> MakeInput:
    config, conscience = run.config, run.conscience
    examples, tokenized = rows.examples, rows.tokenized
    if not examples:
        if conscience is None:
            return given_inputs(rows.given)
        return pool_inputs(run, Listening(run, 0, rows.pool, rows.given))
    schedule = schedule_of(config, tokenized)
    if conscience is None:
        plain = plain_inputs(schedule, tokenized, rows.given)
        return holding(config, run.setup, plain) if holds_a_pool(config) else plain
    targets = None
    if config.conscience.candidate != "policy":
        targets = _reviewed_targets(run, schedule, examples, tokenized)
    if config.conscience.candidate == "target":
        return target_inputs(schedule, targets)
    prompts = [example.messages for example in examples]
    listening = Listening(run, config.training.batch_size, rows.pool, rows.given)
    return policy_inputs(run, PromptRows(schedule, prompts, tokenized), listening, targets=targets)


def _reviewed_targets(
    run: Run, schedule: Schedule, examples: list[Example], tokenized: list[Tokenized]
) -> ReviewedTargets:
    """The targets that the run's steps will see, reviewed once; the journal's first records."""
    config, conscience = run.config, run.conscience
    rows = rows_to_train_on(config, schedule)
    with run.clock.part("review"):
        reviewed = reviewed_targets(config, run.setup, conscience, examples, tokenized, rows)
    if not run.first_step and is_first():
        run.journal.write([reviewed[row]["journal"] | {"step": BEFORE_STEPS} for row in rows])
    return ReviewedTargets(conscience, tokenized, reviewed, config.conscience.on_flagged)


def _tokenized(config: RunConfig, setup: Setup, examples: list[Example]) -> list[Tokenized]:
    data = config.data
    rows = [
        tokenize(example, setup.chat, data.max_prompt_tokens, data.max_response_tokens)
        for example in examples
    ]
    if any(not row.target or not row.prompt for row in rows):
        raise UserError(f"{data.train}: a row has no tokens; is the tokenizer right?")
    return rows


def _what_was_cut(config: RunConfig, rows: list[Tokenized]) -> tuple[str, ...]:
    prompts, targets = sum(r.prompt_cut for r in rows), sum(r.target_cut for r in rows)
    if not prompts and not targets:
        return ()
    return (
        f"{config.data.train}: of {len(rows)} rows, {prompts} prompts were too long (their "
        f"end was kept) and {targets} answers (their start was kept); see "
        "config.data.max_prompt_tokens and max_response_tokens",
    )
