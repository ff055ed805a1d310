"""Fine-tuning on a task, plainly or with the conscience: the first application."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from emergent_alignment import __version__
from emergent_alignment.applications.reviewed_targets import reviewed_targets
from emergent_alignment.applications.runs import claim, identity_of
from emergent_alignment.applications.setup import (
    Setup,
    check_config,
    check_rows,
    conscience_settings,
    examples_digest,
    load_model,
    lora_config,
    starting_params,
    training_examples,
)
from emergent_alignment.applications.step_inputs import (
    plain_inputs,
    policy_inputs,
    rows_to_train_on,
    schedule_of,
    target_inputs,
)
from emergent_alignment.conscience.journal import Journal
from emergent_alignment.data.batches import Tokenized, tokenize
from emergent_alignment.data.sources import Example
from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import check_same, is_first, together
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress
from emergent_alignment.training.checkpoints import Checkpoints
from emergent_alignment.training.clock import Clock
from emergent_alignment.training.loop import LoopSettings, run
from emergent_alignment.training.metrics import MetricsWriter, NoMetrics
from emergent_alignment.training.optimizer import make_optimizer
from emergent_alignment.training.profiling import Profiler
from emergent_alignment.training.state import TrainState, initial_state
from emergent_alignment.training.step import StepSettings, compiled_step, step_shardings


def finetune(
    config: ConfigDict,
    workdir: Path,
    *,
    setup: Setup | None = None,
    name: str = "training",
    profiled: range = range(0),
) -> TrainState:
    """Train as the config says, from the newest checkpoint in `workdir` if there is one. Several
    hosts (parallel/hosts.py) call it with the same config and a `workdir` that all can reach. A
    profile of the steps `profiled` goes to workdir/profile.

    Returns the last state. Raises UserError before anything is trained where the input is not
    right, on every host where it is not right on one, and Stopped where a process was asked to
    stop (the state is saved).
    """
    with together():
        check_config(config)
        conscience = conscience_settings(config) if config.conscience.enabled else None
        examples = training_examples(config)
        setup = setup or load_model(config)
        check_rows(config, setup.mesh)
        tokenized = _tokenized(config, setup, examples)
    check_same(
        {"version": __version__, "jax": jax.__version__, "data": examples_digest(examples)}
        | _flat(config.to_dict())
    )
    with in_force(setup.mesh):
        identity = identity_of(setup)
        with together():
            if is_first():
                claim(workdir, config, identity)
                _say_what_was_cut(config, tokenized)
        profiler = Profiler(profiled, workdir / "profile")
        rows = examples, tokenized
        return _train(config, workdir, setup, conscience, rows, identity, name, profiler)


def _train(config, workdir, setup, conscience, rows, identity, name, profiler) -> TrainState:
    """The run itself, with everything it needs checked and loaded."""
    examples, tokenized = rows
    lora, settings = lora_config(config), step_settings(config, setup)
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    frozen = setup.model.params
    start = starting_params(config, setup)
    state = initial_state(start, lora, optimizer, config.seed, setup.mesh)
    checkpoints = Checkpoints(
        workdir / "checkpoints", identity, keep=config.training.keep_checkpoints
    )
    first_step = checkpoints.latest() or 0
    if first_step:
        state = checkpoints.restore(state)
    journal = Journal(workdir / "journal", first_step=first_step, host=jax.process_index())
    metrics = MetricsWriter(workdir, first_step=first_step) if is_first() else NoMetrics()
    schedule, clock = schedule_of(config, tokenized), Clock()
    if conscience is None:
        make_input = plain_inputs(schedule, tokenized)
    elif config.conscience.candidate == "target":
        trained = rows_to_train_on(config, schedule)
        reviewed = reviewed_targets(config, setup, conscience, examples, tokenized, trained)
        if not first_step and is_first():
            journal.write([reviewed[row]["journal"] for row in trained])
        make_input = target_inputs(conscience, schedule, tokenized, reviewed)
    else:
        make_input = policy_inputs(
            config, setup, conscience, lora, schedule, examples, tokenized, clock
        )
    with clock, progress(name, shown=is_first()) as meter:
        state = run(
            LoopSettings(
                config.training.steps,
                config.training.checkpoint_every,
                config.training.max_nonfinite,
                config.training.journal_texts,
            ),
            state,
            frozen,
            compiled_step(settings, optimizer, step_shardings(setup.mesh, state, frozen)),
            make_input,
            checkpoints,
            metrics,
            journal,
            clock,
            profiler,
            first_step=first_step,
            meter=meter,
        )
    for opened in (journal, metrics, checkpoints, profiler):
        opened.close()
    return state


def _flat(tree: dict, prefix: str = "config.") -> dict:
    """{"config.section.field": value}."""
    flat = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def step_settings(config: ConfigDict, setup: Setup) -> StepSettings:
    """The static part of the training step."""
    loss = config.loss
    return StepSettings(
        setup.model.config,
        lora_config(config),
        jnp.dtype(config.model.dtype),
        remat=config.training.remat,
        chunk_size=loss.chunk_size,
        accumulation=config.training.accumulation,
        kind=loss.kind,
        beta=loss.beta,
        label_smoothing=loss.label_smoothing,
        normalize=loss.normalize,
        alignment_weight=loss.alignment_weight,
        chosen_nll_weight=loss.chosen_nll_weight,
    )


def _tokenized(config: ConfigDict, setup: Setup, examples: list[Example]) -> list[Tokenized]:
    data = config.data
    rows = [
        tokenize(example, setup.chat, data.max_prompt_tokens, data.max_response_tokens)
        for example in examples
    ]
    if any(not row.target or not row.prompt for row in rows):
        raise UserError(f"{data.train}: a row has no tokens; is the tokenizer right?")
    return rows


def _say_what_was_cut(config: ConfigDict, rows: list[Tokenized]) -> None:
    prompts, targets = sum(r.prompt_cut for r in rows), sum(r.target_cut for r in rows)
    if prompts or targets:
        print(
            f"{config.data.train}: of {len(rows)} rows, {prompts} prompts were too long (their "
            f"end was kept) and {targets} answers (their start was kept); see "
            "config.data.max_prompt_tokens and max_response_tokens",
            file=sys.stderr,
        )
