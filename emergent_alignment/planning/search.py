"""Meshes, microbatches and remat policies, compiled one after another and ranked.

What cannot fit is left out by a bound that needs no compiler: what is held, the gradients and the
inputs of the layers. The rest is ordered by an estimate of the step's time and compiled in that
order; only compiled figures are reported.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import jax.numpy as jnp

from emergent_alignment.errors import UserError
from emergent_alignment.models import ideal
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.names import EXPERT_PROJECTIONS
from emergent_alignment.parallel.mesh import AXES, MeshSection, sizes_of
from emergent_alignment.planning.plan import Plan, bytes_a_chip, held_bytes, make_plan
from emergent_alignment.planning.programs import Held, held, largest_batch
from emergent_alignment.planning.topologies import Target
from emergent_alignment.progress import Meter
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.from_config import check_rows
from emergent_alignment.settings import changed

REMAT = ("none", "dots", "full")


@dataclass(frozen=True)
class ConfigChoice:
    """A config with one choice of mesh, accumulation and remat; candidates are compiled by
    `order`, the lowest first."""

    config: RunConfig
    order: float


@dataclass(frozen=True)
class Found:
    """Plans of the training step that were compiled, those that fit first and the fastest of them
    at the top; how many candidates there were, and how many of them could not fit anyway."""

    plans: list[Plan]
    candidates: int
    too_large: int


def search(
    config: RunConfig, model: ModelConfig, target: Target, most: int, meter: Meter | None = None
) -> Found:
    """Compile the training step of the `most` most promising candidates. Raises UserError where
    no mesh divides the model and the batch."""
    every = list(_candidates(config, model, target))
    if not every:
        raise UserError(
            f"--search: no mesh of {len(target.devices)} devices divides this model and "
            f"config.training.batch_size {config.training.batch_size}"
        )
    possible = sorted((c for c in every if c is not None), key=lambda c: c.order)
    plans = []
    for candidate in possible[:most]:
        plans.append(make_plan(candidate.config, model, target, only_training=True))
        if meter is not None:
            meter(len(plans), min(most, len(possible)), "compiled")
    return Found(sorted(plans, key=rank), len(every), len(every) - len(possible))


def rank(plan: Plan) -> tuple:
    """Fitting plans first, by the roofline's time (by memory, where there is no data sheet)."""
    limits = plan.programs[0].roofline
    return not plan.fits, limits.seconds if limits else 0.0, -plan.headroom


def _candidates(
    config: RunConfig, model: ModelConfig, target: Target
) -> Iterator[ConfigChoice | None]:
    """None for one that cannot fit."""
    for run in _runs(config, model, target):
        for accumulation in _divisors(config.training.batch_size):
            for remat in REMAT:
                choice = changed(
                    run.config, {"training.accumulation": accumulation, "training.remat": remat}
                )
                settings = replace(run.settings, accumulation=accumulation)
                tried = replace(run, config=choice, settings=settings)
                try:
                    check_rows(choice, run.mesh)
                except UserError:
                    continue
                fits = _least_bytes(tried, remat) <= target.chip.hbm_bytes
                yield ConfigChoice(choice, _estimate(tried, remat, target)) if fits else None


def _runs(config: RunConfig, model: ModelConfig, target: Target) -> Iterator[Held]:
    """What is held on each mesh that divides the model and the batch."""
    for mesh in _meshes(len(target.devices), model.num_experts):
        choice = changed(config, {"mesh": MeshSection(**mesh), "training.accumulation": 1})
        try:
            yield held(choice, model, target)
        except UserError:
            continue


def _meshes(chips: int, num_experts: int) -> Iterator[dict[str, int]]:
    of_experts = _divisors(math.gcd(chips, num_experts or 1))
    for sizes in itertools.product(_divisors(chips), of_experts, _divisors(chips)):
        data, left = divmod(chips, math.prod(sizes))
        if not left:
            yield dict(zip(AXES, (data, *sizes)))


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _least_bytes(run: Held, remat: str) -> int:
    """What a step cannot do without on each chip: what is held, gradients (and their sum, with
    microbatches), every layer's input, and without remat both halves of every MLP."""
    resident = held_bytes(run)
    gradients = resident["parameters"] * (2 if run.settings.accumulation > 1 else 1)
    width = run.model.hidden_size
    if remat == "none":
        width += 2 * run.model.inner_size // run.tensor_shards
    kept = _tokens_a_chip(run) * run.model.num_layers * width
    return sum(resident.values()) + gradients + kept * jnp.dtype(run.settings.dtype).itemsize


def _tokens_a_chip(run: Held) -> int:
    """Of a microbatch."""
    layout, _ = largest_batch(run.config)
    rows = run.config.training.batch_size // (run.row_shards * run.settings.accumulation)
    return rows * (layout.prompt + layout.branches * layout.branch)


def _estimate(run: Held, remat: str, target: Target) -> float:
    """The larger of a step's times for matmuls and collectives (without a data sheet: bytes of
    collectives). Each microbatch gathers the parameters that fsdp has cut for each pass over
    them, adds up two activations a layer and pass where the tensor axis cuts layers, and sends two
    to the experts and back where these are cut."""
    layout, _ = largest_batch(run.config)
    model, settings, chip = run.model, run.settings, target.chip
    rows = run.config.training.batch_size
    once = ideal.forward_flops(model, layout, rows, settings.lora)
    passes = 4 if remat == "full" else 3
    flops = passes * (once.kernels + once.vocabulary + once.attention)
    itemsize = jnp.dtype(settings.dtype).itemsize
    sizes = sizes_of(run.mesh)
    fsdp, expert, tensor = sizes["fsdp"], sizes["expert"], sizes["tensor"]
    layers = run.frozen["layers"]
    of_experts = bytes_a_chip([layers[name] for name in EXPERT_PROJECTIONS if name in layers])
    others = bytes_a_chip(run.frozen) - of_experts
    cut = others * (fsdp * expert - 1) + of_experts * (fsdp - 1)
    gathered = cut * passes * settings.accumulation
    activation = _tokens_a_chip(run) * settings.accumulation * model.hidden_size * itemsize
    added = 2 * (tensor - 1) / tensor * activation + (expert - 1) * activation
    sent = gathered + 2 * passes * model.num_layers * added
    if chip.peak_flops is None:
        return sent
    return max(flops / len(target.devices) / chip.peak_flops, sent / chip.ici_bandwidth)
