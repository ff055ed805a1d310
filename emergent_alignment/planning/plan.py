"""A plan: what a run's programs need and cost on chips that are not at hand.

Each program is compiled for the target; memory is the compiler's own account, beside the parts
that shardings give; FLOPs, HBM bytes and collectives are read from the compiled program.
"""

import math
import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from emergent_alignment.models.config import ModelConfig
from emergent_alignment.parallel.mesh import in_force, sizes_of
from emergent_alignment.planning.hlo import Cost, program_cost
from emergent_alignment.planning.kernels import with_grouped
from emergent_alignment.planning.links import slice_links
from emergent_alignment.planning.listening_programs import listening_programs
from emergent_alignment.planning.online import OnlineStep, online_step
from emergent_alignment.planning.programs import Held, Program, held, training_step
from emergent_alignment.planning.roofline import Roofline, peak_share, roofline
from emergent_alignment.planning.topologies import Target
from emergent_alignment.progress import Meter
from emergent_alignment.runs.config import RunConfig

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Memory:
    """Bytes on each chip while a program runs.

    held         "parameters", "frozen copy", "optimizer": on the chip all the time, whether this
                 program reads them or not (from their shapes and shardings)
    given        other arguments, and what tiling pads (compiler)
    cache        keys and values, among `given` or `made` (from shapes and shardings)
    gradients    of what is trained, among `temporaries` (from shapes and shardings)
    temporaries  (compiler)
    made         results that reuse no argument (compiler)
    code         the program (compiler)
    needed       the total that the compiler named, where it refused the program; else None
    """

    held: dict[str, int]
    given: int = 0
    cache: int = 0
    gradients: int = 0
    temporaries: int = 0
    made: int = 0
    code: int = 0
    needed: int | None = None

    @property
    def total(self) -> int:
        if self.needed is not None:
            return self.needed
        return sum(self.held.values()) + self.given + self.temporaries + self.made + self.code


@dataclass(frozen=True)
class ProgramPlan:
    """One program's plan; cost and roofline are None where the compiler refused it."""

    name: str
    shape: str
    memory: Memory
    ideal_flops: float
    cost: Cost | None
    roofline: Roofline | None
    peak_share: float | None
    compile_seconds: float


@dataclass(frozen=True)
class Plan:
    """All programs of a run on a target; `decode_tensor` is the tensor axis while it decodes."""

    target: Target
    mesh: dict[str, int]
    settings: dict[str, Any]
    programs: list[ProgramPlan] = field(default_factory=list)
    online: OnlineStep | None = None
    decode_tensor: int = 1

    @property
    def fits(self) -> bool:
        return self.headroom >= 0

    @property
    def headroom(self) -> int:
        """Bytes that are left on a chip beside the largest program; negative: that are missing."""
        return self.target.chip.hbm_bytes - max(p.memory.total for p in self.programs)


def make_plan(
    config: RunConfig,
    model: ModelConfig,
    target: Target,
    *,
    only_training: bool = False,
    meter: Meter | None = None,
) -> Plan:
    """Compile a run's programs for the target and add up what they need. Raises UserError where
    the mesh or the batch does not fit the devices or the model."""
    run = held(config, model, target)
    cut = 1 if run.mesh is None else run.mesh.shape["decode"] * run.mesh.shape["tensor"]
    plan = Plan(target, sizes_of(run.mesh), settings_of(config), decode_tensor=cut)
    programs = [training_step(run, target)]
    if config.conscience.enabled and not only_training:
        programs += listening_programs(run)
    # Compilers run on one core each, mostly: the step beside the others.
    with in_force(run.mesh), ThreadPoolExecutor(2) as pool:

        def start(program: Program) -> Future:
            return pool.submit(plan_program, program, program.lower(), run, target)

        started = [start(program) for program in programs]
        for done, future in enumerate(started, 1):
            plan.programs.append(future.result())
            if meter is not None:
                meter(done, len(started), plan.programs[-1].name)
    limits = {program.name: program.roofline for program in plan.programs}
    return replace(plan, online=online_step(run.config, limits))


def plan_program(program: Program, lowered: Any, run: Held, target: Target) -> ProgramPlan:
    """One program's plan, also where the compiler says that it does not fit."""
    started = time.monotonic()
    resident = held_bytes(run)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = refused_bytes(str(error))
        if needed is None:
            raise
        needed += sum(size for name, size in resident.items() if _absent(name, program))
        memory = Memory(resident, needed=needed)
        seconds = time.monotonic() - started
        unknown = (program.ideal_flops, None, None, None, seconds)
        return ProgramPlan(program.name, program.shape, memory, *unknown)
    links = None if run.mesh is None else slice_links(run.mesh.devices.flat)
    kernel_flops = with_grouped(program.kernel_flops, run.expert_shards)
    options = {"trips": program.trips, "kernel_flops": kernel_flops, "links": links}
    cost = program_cost(compiled.as_text(), **options)
    limits, share = roofline(target.chip, cost), None
    if limits is not None:
        share = peak_share(target.chip, len(target.devices), program.ideal_flops, limits.seconds)
    return ProgramPlan(
        program.name,
        program.shape,
        memory_of(program, run, resident, compiled),
        program.ideal_flops,
        cost,
        limits,
        share,
        time.monotonic() - started,
    )


HELD_NAMES = {"trainable": "parameters", "frozen": "frozen copy", "optimizer": "optimizer"}


def held_bytes(run: Held) -> dict[str, int]:
    """Bytes on each chip of what is held all the time."""
    return {
        "parameters": bytes_a_chip(run.state.trainable),
        "frozen copy": bytes_a_chip(run.frozen),
        "optimizer": bytes_a_chip(run.state.optimizer),
    }


def bytes_a_chip(tree: Any) -> int:
    """Of arrays, or shapes, with shardings."""
    leaves = jax.tree.leaves(tree)
    sizes = (math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    return sum(size * leaf.dtype.itemsize for size, leaf in zip(sizes, leaves))


def _absent(name: str, program: Program) -> bool:
    return name not in {HELD_NAMES[argument] for argument in program.arguments}


def memory_of(program: Program, run: Held, resident: dict[str, int], compiled: Any) -> Memory:
    """The compiler's account, split by what the shardings say."""
    account = compiled.memory_analysis()
    read = sum(size for name, size in resident.items() if not _absent(name, program))
    trains = "optimizer" in program.arguments
    return Memory(
        resident,
        given=max(account.argument_size_in_bytes - read, 0),
        cache=program.cache_bytes,
        gradients=bytes_a_chip(run.state.trainable) if trains else 0,
        temporaries=account.temp_size_in_bytes,
        made=max(account.output_size_in_bytes - account.alias_size_in_bytes, 0),
        code=account.generated_code_size_in_bytes,
    )


def refused_bytes(message: str) -> int | None:
    """What a program would need, out of the compiler's refusal; None for any other error."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    amounts = re.search(r"Used ([\d.]+)([KMGT]?) of|temporaries \(([\d.]+)([KMGT]?)\)", message)
    if amounts is None:
        return None
    number, unit = amounts[1] or amounts[3], amounts[2] or amounts[4]
    return int(float(number) * UNITS[unit])


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The settings that decide what a plan says."""
    return {
        "model": config.model.path,
        "dtype": config.model.dtype,
        "param_dtype": config.model.param_dtype,
        "frozen_dtype": config.model.frozen_dtype or config.model.param_dtype,
        "lora.rank": config.lora.rank,
        "optimizer": config.optimizer.kind,
        "moment_dtype": config.optimizer.moment_dtype,
        "training.batch_size": config.training.batch_size,
        "conscience.batch_size": config.conscience.batch_size,
        "accumulation": config.training.accumulation,
        "remat": config.training.remat,
    }
