"""The loop: input, step, metrics, checkpoint. It does not know which application runs.

SIGTERM or SIGINT finish the step at hand, or leave it between two phases of sampling, save, and
raise `Stopped`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from emergent_alignment.conscience.journal import Journal
from emergent_alignment.data.batches import StepBatch
from emergent_alignment.errors import Stopped, UserError
from emergent_alignment.models.decoder import REMAT_POLICIES
from emergent_alignment.parallel import hosts
from emergent_alignment.parallel.hosts import gather
from emergent_alignment.parallel.rows import to_devices
from emergent_alignment.parallel.stopping import (
    AskedToStop,
    asked_to_stop,
    listening_to_signals,
)
from emergent_alignment.parallel.watch import step_progress
from emergent_alignment.settings import Section, setting
from emergent_alignment.training.checkpoints import Checkpoints
from emergent_alignment.training.clock import Clock
from emergent_alignment.training.hooks import Hook, NoHook, Told
from emergent_alignment.training.metrics import MetricsWriter
from emergent_alignment.training.profiling import Profiler
from emergent_alignment.training.state import TrainState
from emergent_alignment.training.throughput import Throughput


@dataclass(frozen=True)
class TrainingSection(Section):
    """Steps, batches and what is kept of a run."""

    steps: int = setting(100, "Steps of the run.", more_than=0)
    batch_size: int = setting(8, "Prompts a step, over all devices.", more_than=0)
    accumulation: int = setting(1, "Microbatches a step; divides batch_size.", more_than=0)
    remat: str = setting(
        "none",
        "What the backward pass computes again to save memory: dots keeps products of matrices "
        "alone, full nothing.",
        choices=tuple(REMAT_POLICIES),
    )
    checkpoint_every: int = setting(25, "Steps between checkpoints.", more_than=0)
    keep_checkpoints: int = setting(
        2, "Latest checkpoints that are kept, beside the best.", at_least=0
    )
    max_nonfinite: int = setting(
        5,
        "Steps in a row with a loss or gradient that is not finite before the run stops.",
        more_than=0,
    )
    watch_every: int = setting(
        0,
        "Steps between looks at 32 fixed held-out pairs (matched, of data.evaluation); 0: none.",
        at_least=0,
    )
    hooks: tuple[str, ...] = setting(
        (),
        "Hooks of your own, as python:module.function of (run), each of which gives a hook "
        "(training/hooks.py).",
    )
    loggers: tuple[str, ...] = setting(
        ("tensorboard",),
        "Who shows the run, beside its metrics.jsonl: tensorboard, wandb, trackio, or "
        "python:module.function of a ShownRun, which gives a logger (training/loggers.py).",
    )
    project: str = setting("emergent-alignment", "The run's project at wandb and trackio.")
    journal_texts: int = setting(
        2, "Journal entries that loggers show at each checkpoint.", at_least=0
    )

    def check(self) -> None:
        """Microbatches are alike."""
        if self.batch_size % self.accumulation:
            raise UserError(
                f"config.training.accumulation: {self.accumulation} does not divide "
                f"batch_size {self.batch_size}"
            )


@dataclass(frozen=True)
class StepInput:
    """What an application feeds one step: this host's rows of the batch (of the kind that the
    step's objective reads), the journal's records about them, scalars to log, and weights of terms
    (None: their own), which all hosts have alike."""

    batch: StepBatch
    records: list[dict]
    scalars: dict[str, float]
    weights: dict[str, float] | None = None


# (step, trainable) → its input. A pure function, so that a resumed run ends with the same bits.
MakeInput = Callable[[int, Any], StepInput]


@dataclass(frozen=True)
class Recording:
    """What keeps what a run does: its states, its numbers, its reviews, and how long each part
    took; `meter` shows how far it is (steps done, of how many, a note), and `hooks` are told."""

    checkpoints: Checkpoints
    metrics: MetricsWriter
    journal: Journal
    clock: Clock
    profiler: Profiler
    throughput: Throughput
    meter: Callable[[int, int, str], None] = lambda done, total, note: None
    hooks: Hook = NoHook()

    def save(
        self, done: int, state: TrainState, losses: list[float], figure: float | None = None
    ) -> None:
        """A checkpoint after `done` steps, which is not whole before what was recorded of them
        lasts: a run that goes on from it does none of them again."""
        self.journal.settle()
        self.metrics.settle()
        self.checkpoints.save(done, state, loss=_mean_finite(losses), figure=figure)

    def close(self) -> None:
        """What is under way is written."""
        for opened in (self.journal, self.metrics, self.checkpoints, self.profiler):
            opened.close()


def run(
    settings: TrainingSection,
    recording: Recording,
    make_input: MakeInput,
    step_function: Callable[..., tuple[TrainState, dict]],
    state: TrainState,
    frozen: dict,
    *,
    first_step: int = 0,
) -> TrainState:
    """Train from `first_step` to `settings.steps`, or to where a hook ends it; returns the last
    state, which is saved.

    Raises Stopped after SIGTERM or SIGINT, UserError after `max_nonfinite` steps in a row whose
    loss or gradient is not finite.
    """
    nonfinite, losses, done = 0, [], first_step
    checkpoints, clock, hooks = recording.checkpoints, recording.clock, recording.hooks
    steps = range(first_step, 0 if hooks.begin(first_step) else settings.steps)
    with listening_to_signals(), step_progress().of_steps() as watched:
        recording.meter(first_step, settings.steps, "")
        for step in steps:
            watched.step()
            recording.profiler.before(step)
            began = time.perf_counter()
            with clock.part("data"):
                with _saved_if_asked(recording, step, state, losses):
                    inputs = make_input(step, state.trainable)
                recording.journal.write(inputs.records)
            stepping = time.perf_counter()
            with clock.part("step"):
                state, scalars = _stepped(step_function, state, frozen, inputs)
            ended = time.perf_counter()
            recording.profiler.after(step)
            seconds = {"inputs": stepping - began, "step": ended - stepping}
            told = _log(recording, step, inputs, scalars, seconds, state)
            recording.meter(step + 1, settings.steps, _note(scalars, clock))
            losses.append(scalars["loss"])
            nonfinite = nonfinite + 1 if scalars["nonfinite"] else 0
            done, stop = step + 1, asked_to_stop()
            give_up = nonfinite >= settings.max_nonfinite
            due = done % settings.checkpoint_every == 0 or done == settings.steps
            if due or stop or give_up or told.stop or told.figure is not None:
                records = inputs.records[: settings.journal_texts]
                _save(recording, done, state, losses, told.figure, records)
                losses = []
            if give_up:
                checkpoints.close()
                raise _gone_astray(step, nonfinite)
            if stop and done < settings.steps:
                checkpoints.wait()
                raise Stopped(f"asked to stop: saved after step {done} of {settings.steps}")
            if told.stop:
                break
    checkpoints.wait()
    hooks.end(done)
    return state


@contextmanager
def _saved_if_asked(
    recording: Recording, step: int, state: TrainState, losses: list[float]
) -> Iterator[None]:
    """Where a step is left before anything was trained in it, the state that it began with, which
    without any former step is that of a fresh start, or on the disk."""
    try:
        yield
    except AskedToStop:
        if losses:
            recording.save(step, state, losses)
        recording.checkpoints.wait()
        raise Stopped(f"asked to stop: saved after step {step}") from None


def _save(
    recording: Recording,
    done: int,
    state: TrainState,
    losses: list[float],
    figure: float | None,
    records: list[dict],
) -> None:
    """A checkpoint, and beside it some `records` of the journal for those who look on."""
    with recording.clock.part("checkpoint"):
        recording.save(done, state, losses, figure)
    recording.metrics.texts(done, records)
    recording.hooks.saved(done)


def _note(scalars: dict[str, float], clock: Clock) -> str:
    """The task's loss, or that of the pairs where they are alone; and what was compiled so far."""
    name = next(name for name in ("task_loss", "alignment_loss", "loss") if name in scalars)
    return f"{name.replace('_', ' ')} {scalars[name]:.3f}, {clock.compiled} programs compiled"


def _stepped(
    step_function, state: TrainState, frozen: dict, inputs: StepInput
) -> tuple[TrainState, dict[str, float]]:
    batch, weights = to_devices(inputs.batch), _traced(inputs.weights)
    state, scalars = step_function(state, frozen, batch, *weights)
    return state, {name: float(value) for name, value in jax.device_get(scalars).items()}


def _traced(weights: dict[str, float] | None) -> tuple[dict[str, np.float32], ...]:
    """Weights as the last argument of a step that takes them."""
    return () if weights is None else ({name: np.float32(w) for name, w in weights.items()},)


def _gone_astray(step: int, nonfinite: int) -> UserError:
    return UserError(
        f"step {step}: loss or gradient was not finite for {nonfinite} steps in a row; the state "
        "before them is saved. Lower optimizer.learning_rate or look at the data of these steps "
        "in the journal"
    )


def _log(
    recording: Recording,
    step: int,
    inputs: StepInput,
    step_scalars: dict[str, float],
    seconds: dict[str, float],
    state: TrainState,
) -> Told:
    """Tell the hooks and the log of a step; what the hooks say of it."""
    shares = recording.clock.shares()
    scalars = inputs.scalars | _batch_scalars(inputs.batch, seconds, recording.throughput)
    scalars |= {f"weight/{name}": weight for name, weight in (inputs.weights or {}).items()}
    scalars |= {f"seconds_share/{name}": share for name, share in shares.items()}
    if jax.process_count() > 1:
        scalars["host_gathers"] = float(hosts.num_gathers)
    with recording.clock.part("evaluation"):
        told = recording.hooks.step_done(step, state.trainable, step_scalars | scalars)
    recording.metrics.scalars(step, step_scalars | scalars | dict(told.scalars))
    return told


def _batch_scalars(
    batch: StepBatch, seconds: dict[str, float], throughput: Throughput
) -> dict[str, float]:
    """Over all hosts' rows: response lengths (tokens, over rows that have the branch), the share
    of padding, tokens a second of inputs and step together, and the step's own throughput."""
    own = batch.row_lengths()
    lengths = gather(own).reshape(-1, own.shape[1])
    values = {
        "padding_share": batch.padding_share(lengths),
        "tokens_per_second": float(lengths.sum()) / sum(seconds.values()),
    }
    values |= {f"seconds/{name}": spent for name, spent in seconds.items()}
    values |= throughput.scalars(batch, len(lengths), seconds["step"])
    for name, column in batch.branch_columns().items():
        of_role = lengths[:, column]
        present = of_role[of_role > 0]
        values[f"length/{name}"] = float(present.mean()) if present.size else 0.0
    return values


def _mean_finite(losses: list[float]) -> float:
    finite = [loss for loss in losses if np.isfinite(loss)]
    return float(np.mean(finite)) if finite else float(np.finfo(np.float32).max)
