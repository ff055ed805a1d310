"""Evaluation in the loop: what the policy makes of held-out rows as it is trained, the best
checkpoint by one of these figures, and the end of a run that no longer gains by it.
"""

import functools
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emergent_alignment.conscience.chance import reviewer_of
from emergent_alignment.data.batches import Batch, Pair, bucket, make_batch
from emergent_alignment.data.examples import Example
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first
from emergent_alignment.parallel.rows import own_rows, to_devices
from emergent_alignment.parallel.sharding import num_shards
from emergent_alignment.randomness import Purpose
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.from_config import conscience_settings, evaluation_examples
from emergent_alignment.runs.listening import frozen_scores
from emergent_alignment.runs.listening_inputs import finite_anywhere
from emergent_alignment.runs.step_policy import OwnPrompts, policy_model
from emergent_alignment.runs.training_run import Run, step_settings
from emergent_alignment.storage.spread import spread
from emergent_alignment.training.displacement import DisplacementAlarm
from emergent_alignment.training.hooks import Hook, NoHook, Told
from emergent_alignment.training.metrics import metrics_by_step
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.views import PromptView

_WIDTH_STEP = 8
_PREFIX = "held_out/"
# Which way is better.
RISES = {"margin": True, "accuracy": True, "task_loss": False, "kl": False, "flag_rate": False}


def held_out_examples(config: RunConfig) -> list[Example]:
    """The rows that are evaluated on in the loop, spread over config.data.evaluation; none where
    there is no such evaluation. Raises UserError where they cannot be read, or have not what the
    best checkpoint is to be found by."""
    wanted = config.evaluation
    if not wanted.every:
        return []
    examples = spread(evaluation_examples(config.data, 0, whole=True), wanted.loop_rows)
    if wanted.best in ("margin", "accuracy") and not any(map(_matched, examples)):
        raise UserError(
            f"config.evaluation.best: {config.data.evaluation} has no row with two answers, of "
            f"which there would be a {wanted.best}; set task_loss, or name other rows"
        )
    return examples


def in_loop(run: Run, examples: list[Example]) -> list[Hook]:
    """The hooks of a run over prompts: evaluation where there are `examples`, and the alarm of a
    run on given pairs."""
    config, hooks = run.config, []
    if examples:
        hooks.append(HeldOut(run, examples))
    if config.data.preferences and config.evaluation.displacement:
        beta = config.loss.beta
        hooks.append(DisplacementAlarm(config.evaluation.displacement, beta))
    return hooks


class HeldOut(NoHook):
    """Evaluates every so many steps, and says which state was the best."""

    def __init__(self, run: Run, examples: list[Example]):
        self._run, self._examples = run, examples
        self._wanted = run.config.evaluation
        self._settings = replace(step_settings(run.config, run.setup), accumulation=1)
        self._batches = _batches(run, examples)
        self._figures: list[tuple[int, float]] = []  # (steps done, the higher the better)
        self._ended = ""

    def begin(self, first_step: int) -> str:
        """What a former start has measured counts, as if there had been one."""
        for step, values in enumerate(_former_metrics(self._run, first_step)):
            if (name := _PREFIX + self._wanted.best) in values:
                self._note(step + 1, np.nan if values[name] is None else values[name])
        return self._ended

    def step_done(self, step: int, trainable: Any, scalars: Mapping[str, float]) -> Told:
        """The figures after this step, where they are due."""
        if (step + 1) % self._wanted.every:
            return Told()
        values = self._measured(step, trainable)
        told = {_PREFIX + name: value for name, value in values.items()}
        if not self._wanted.best:
            return Told(told)
        is_best = self._note(step + 1, values[self._wanted.best])
        return Told(told, self._figures[-1][1] if is_best else None, self._ended)

    def end(self, steps_done: int) -> None:
        """Say which state was the best, and why the run has ended early."""
        if self._figures and is_first():
            best, value = max(self._figures, key=lambda one: (one[1], -one[0]))
            value = value if RISES[self._wanted.best] else -value
            said = f"best {_PREFIX}{self._wanted.best}: {value:.4g}, after {best} steps"
            print("\n".join(filter(None, [self._ended, said])), file=sys.stderr, flush=True)

    def _note(self, steps_done: int, value: float) -> bool:
        """Whether this is the best figure so far; what is not a number is the worst."""
        figure = value if RISES[self._wanted.best] else -value
        figure = figure if np.isfinite(figure) else -np.finfo(np.float32).max
        is_best = all(figure > former for _, former in self._figures)
        self._figures.append((steps_done, float(figure)))
        best = max(range(len(self._figures)), key=lambda i: (self._figures[i][1], -i))
        since = len(self._figures) - 1 - best
        if self._wanted.patience and since >= self._wanted.patience:
            self._ended = (
                f"stopped after step {steps_done}: no better {_PREFIX}{self._wanted.best} in "
                f"{since} evaluations (config.evaluation.patience)"
            )
        return is_best

    def _measured(self, step: int, trainable: Any) -> dict[str, float]:
        frozen = self._run.setup.model.params
        parts = [
            jax.device_get(held_out_sums(self._settings, trainable, frozen, to_devices(batch)))
            for batch in self._batches
        ]
        total = {name: float(sum(part[name] for part in parts)) for name in parts[0]}
        values = {
            "task_loss": total["target_nll"] / max(total["target_tokens"], 1.0),
            "kl": total["target_kl"] / max(total["target_tokens"], 1.0),
        }
        if total["pairs"]:
            names = ("margin", "margin_moved", "accuracy", "safe_moved")
            values |= {name: total[name] / total["pairs"] for name in names}
        if self._wanted.loop_samples:
            values["flag_rate"] = self._flag_rate(step, trainable)
        return values

    def _flag_rate(self, step: int, trainable: Any) -> float:
        """The share of the policy's own answers to held-out prompts that the conscience flags."""
        run = self._run
        conscience = run.conscience or conscience_settings(run.config)
        reviewer = reviewer_of(run.setup.model, run.setup.chat, conscience)
        policy = policy_model(run, trainable)
        asked = _asked(run, self._examples)
        scores = finite_anywhere(
            frozen_scores(run, reviewer, conscience, policy, asked, step, Purpose.HELD_OUT_SAMPLES)
        )
        return float((np.array(scores) < conscience.threshold).mean()) if scores else float("nan")


@functools.partial(jax.jit, static_argnums=0)
def held_out_sums(
    settings: StepSettings, trainable: Any, frozen: dict, batch: Batch
) -> dict[str, Float[Array, ""]]:
    """Sums over a batch of held-out rows: −log π_θ and KL(π_θ ‖ π_θ₀) of the targets' tokens, in
    nats, and their number; of the pairs (safe over harmful) log P(safe) − log P(harmful), how far
    it has moved from the frozen copy's, whether it is positive, how far log P(safe) has moved, and
    their number."""
    view = PromptView(settings, trainable, frozen, batch)
    mask, pairs = view.target_mask, view.summed_pairs
    margin, before = (first - second for first, second in (pairs.policy, pairs.reference))
    of_pairs = {
        "pairs": jnp.ones_like(margin),
        "margin": margin,
        "margin_moved": margin - before,
        "accuracy": (margin > 0).astype(jnp.float32),
        "safe_moved": pairs.policy[0] - pairs.reference[0],
    }
    return {name: jnp.where(pairs.mask, values, 0.0).sum() for name, values in of_pairs.items()} | {
        "target_tokens": mask.sum().astype(jnp.float32),
        "target_nll": -jnp.where(mask, view.target_log_probs, 0.0).sum(),
        "target_kl": jnp.where(mask, view.held_kl, 0.0).sum(),
    }


def _batches(run: Run, examples: list[Example]) -> list[Batch]:
    """This host's rows, a training step's number at once, in one shape; rows that fill up the last
    batch hold no token."""
    data, size = run.config.data, run.config.training.batch_size
    limits = data.max_prompt_tokens, data.max_response_tokens

    def tokens(example: Example, answer: str) -> tuple[list[int], list[int]]:
        row = tokenize(replace(example, target=answer), run.setup.chat, *limits)
        return row.prompt, row.target

    rows = []
    for example in examples:
        prompt, target = tokens(example, example.target)
        sides = [tokens(example, one)[1] for one in _sides(example)]
        rows.append((prompt, target, Pair(*sides) if sides else None))
    answers = [
        answer
        for _, target, pair in rows
        for answer in (target, *((pair.chosen, pair.rejected) if pair else ()))
    ]
    widths = [
        bucket(max(map(len, some)), _WIDTH_STEP, 1 << 30)
        for some in ([row[0] for row in rows], answers)
    ]
    rows += [([], [], None)] * (-len(rows) % size)
    batches = []
    for start in range(0, len(rows), size):
        own = [rows[start + place] for place in own_rows(size)]
        prompts, targets, pairs = map(list, zip(*own))
        shape = {"prompt_width": widths[0], "branch_width": widths[1]}
        batches.append(make_batch(prompts, targets, pairs, **shape))
    return batches


def _sides(example: Example) -> list[str]:
    return [example.safe, example.harmful] if _matched(example) else []


def _matched(example: Example) -> bool:
    return bool(example.safe and example.harmful)


def _asked(run: Run, examples: list[Example]) -> OwnPrompts:
    """This host's share of the held-out prompts that the policy answers."""
    shards = num_shards(run.setup.mesh, "batch")
    number = min(run.config.evaluation.loop_samples, len(examples))
    chosen = spread(examples, max(number // shards, 1) * shards)
    places = own_rows(len(chosen))
    own = [chosen[place] for place in places]
    longest = run.config.data.max_prompt_tokens
    tokens = [run.setup.chat.prompt_tokens(one.messages)[-longest:] for one in own]
    return OwnPrompts([one.messages for one in own], tokens, places, places)


def _former_metrics(run: Run, first_step: int) -> list[dict]:
    return metrics_by_step(run.workdir)[:first_step] if first_step else []
