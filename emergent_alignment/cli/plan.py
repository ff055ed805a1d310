"""Say what a run needs and costs on chips that are not at hand, before paying for them.

The training step, the sampler's prefill and decoding, and a review are compiled for the topology
by libtpu, with no TPU. Printed per chip: memory by what holds it, FLOPs against the model's ideal,
bytes of HBM and of each kind of collective, the roofline's least time, and whether it fits. The
model's config.json is enough: no weights are read.

examples:
  emergent-alignment plan --config smollm2_135m --topology v5e:2x2
  emergent-alignment plan --topology v5e:4x4 --config.model.path=Qwen3-4B \\
      --config.mesh.data=1 --config.mesh.fsdp=16 --config.training.batch_size=64 --json plan.json
  emergent-alignment plan --topology v5p:2x2x1 --search 8 --config.model.path=Qwen/Qwen3-4B
  emergent-alignment plan --topology gpu:8xH100 --config.mesh.fsdp=8 --config.mesh.data=1
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from emergent_alignment.cli.bundled import bundled_sizes
from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.outputs import require_new_file
from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import write_json

if TYPE_CHECKING:
    from emergent_alignment.models.config import ModelConfig
    from emergent_alignment.planning.online import OnlineStep
    from emergent_alignment.planning.plan import Plan, ProgramPlan
    from emergent_alignment.planning.search import Found

_GIB, MIB = 1 << 30, 1 << 20
LEGEND = """\
shapes: computed from shapes and shardings; what is in brackets is in the lines above
{compiler}: memory_analysis() of the compiled program{cpu}
program: read from the compiled program, loops multiplied; attention kernels from their shapes;
  a single row a chip times a matrix is no matmul for XLA, and its FLOPs are not counted;
  collectives: bytes a chip sends by the ring algorithm, and how often
sizes: 6N and attention (4N and LoRA's own where the base is frozen), nothing computed twice
data sheet: program over data sheet, all work at its full rate: bounds, not forecasts"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the chips, and how many meshes are tried."""
    parser.add_argument(
        "--topology", required=True, help="such as v5e:4x4, v5p:2x2x4, v6e:8x8 or gpu:8xH100"
    )
    parser.add_argument("--json", type=Path, help="also write every figure, and its source, here")
    parser.add_argument(
        "--search",
        type=int,
        metavar="N",
        help="try meshes, microbatches and remat policies: compile the N most promising",
    )
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Compile the step for the chips, and print what it needs and costs."""
    config = read_config(rest)
    if config.application == "pretraining":
        raise UserError(
            "config.application: plans are made of prompts with their answers; there are none of "
            "raw text yet, so measure a short run"
        )
    if arguments.json is not None:
        require_new_file(arguments.json)
    if arguments.search is not None and arguments.search < 1:
        raise UserError(f"--search: compile at least 1 candidate, not {arguments.search}")
    from emergent_alignment.planning.topologies import prepare, target_of

    prepare(arguments.topology)
    from emergent_alignment.models.loading import read_model_config as read_model_config
    from emergent_alignment.planning.plan import make_plan
    from emergent_alignment.planning.report import as_json
    from emergent_alignment.planning.search import search
    from emergent_alignment.progress import progress

    model = read_model_config(bundled_sizes(config.model.path))
    target = target_of(arguments.topology)
    with progress("planning") as meter:
        if arguments.search is None:
            plans = [make_plan(config, model, target, meter=meter)]
        else:
            searched = search(config, model, target, arguments.search, meter)
            plans = searched.plans
    if arguments.search is not None:
        print_search(searched)
    if plans:
        print_plan(plans[0], model)
    if arguments.json is not None:
        kept = {"plans": [as_json(plan) for plan in plans]}
        write_json(arguments.json, kept)
        print(f"written: {arguments.json}")


def print_search(searched: "Found") -> None:
    """The candidates that were compiled, the best first."""
    from rich.console import Console
    from rich.table import Table

    from emergent_alignment.parallel.mesh import shape_text

    table = Table(title="training steps that were compiled, per chip")
    for name in (
        "data × fsdp × tensor",
        "microbatches",
        "remat",
        "memory",
        "to spare",
        "least time",
    ):
        table.add_column(name)
    for plan in searched.plans:
        step = plan.programs[0]
        table.add_row(
            shape_text(plan.mesh),
            str(plan.settings["accumulation"]),
            plan.settings["remat"],
            size(step.memory.total),
            size(plan.headroom),
            f"{step.roofline.seconds:.3g} s" if step.roofline else "—",
        )
    console = Console()
    console.print(table)
    rest = searched.candidates - searched.too_large - len(searched.plans)
    console.print(
        f"{searched.candidates} candidates: {searched.too_large} cannot fit by what they hold, "
        f"{rest} were not compiled",
        highlight=False,
    )


def print_plan(plan: "Plan", model: "ModelConfig") -> None:
    """One column a program, one row a figure, and where each comes from."""
    from rich.console import Console
    from rich.table import Table

    from emergent_alignment.parallel.mesh import sizes_text
    from emergent_alignment.planning.advice import decode_words, verdict

    chip, chips = plan.target.chip, len(plan.target.devices)
    mesh = sizes_text(plan.mesh, " ")
    table = Table(title=f"{plan.target.topology}: {chips} × {chip.name}; mesh {mesh}; per chip")
    table.add_column("", no_wrap=True)
    for program in plan.programs:
        table.add_column(program.name, justify="right")
    table.add_column("from", no_wrap=True)
    compiler = "CPU compiler" if plan.target.compiled_for_cpu else "compiler"
    for name, figure, source in plan_figures(plan, compiler):
        table.add_row(name, *map(figure, plan.programs), source)
    console = Console()
    console.print(table)
    cpu = ""
    if plan.target.compiled_for_cpu:
        cpu = " for as many CPU devices: a GPU's compiler plans its temporaries otherwise"
    console.print(LEGEND.format(compiler=compiler, cpu=cpu), highlight=False, soft_wrap=True)
    for program in plan.programs:
        console.print(f"{program.name}: {program.shape}", highlight=False)
    limit = "the limit that libtpu names"
    if plan.target.compiled_for_cpu:
        limit = "what JAX takes of a GPU's unless XLA_PYTHON_CLIENT_MEM_FRACTION is set"
        limit = limit if plan.target.topology.startswith("gpu") else "as given"
    console.print(f"memory of a chip: {size(chip.hbm_bytes)} ({limit})", highlight=False)
    if chip.source is not None:
        console.print(
            f"data sheet: {chip.peak_flops / 1e12:.0f} TFLOP/s bfloat16, HBM "
            f"{chip.hbm_bandwidth / 1e9:.0f} GB/s, interconnect {chip.ici_bandwidth / 1e9:.0f} "
            f"GB/s sent ({chip.source})",
            highlight=False,
            soft_wrap=True,
        )
    if len(plan.programs) > 1 and chips > 1:
        console.print(decode_words(plan, model), highlight=False, soft_wrap=True)
    if plan.online is not None:
        console.print(online_words(plan.online), highlight=False, soft_wrap=True)
    console.print(verdict(plan), highlight=False, soft_wrap=True)


def online_words(online: "OnlineStep") -> str:
    """The online step on a line."""
    calls = ", ".join(f"{times:.3g} × {name}" for name, times in online.calls.items())
    return (
        f"online step: {online.seconds:.3g} s at least, {online.ratio:.1f} × the training step: a "
        f"round every {online.every} steps, of {online.round:.3g} s ({calls}; all flagged)"
    )


def plan_figures(
    plan: "Plan", compiler: str
) -> list[tuple[str, Callable[["ProgramPlan"], str], str]]:
    """(name, figure of a program, where it comes from), a row each."""
    chips = len(plan.target.devices)

    def held(name: str):
        return name, lambda p: size(p.memory.held[name]), "shapes"

    def made(name: str, field: str, source: str):
        # A program that the compiler refused has a total alone.
        return name, lambda p: size(getattr(p.memory, field)) if p.cost else "—", source

    def counted(name: str, figure: Callable[["ProgramPlan"], str], source: str = "program"):
        return name, lambda p: figure(p) if p.cost else "—", source

    def limit(name: str, field: str):
        return counted(f"s by {name}", lambda p: f"{getattr(p.roofline, field):.3g}", "data sheet")

    rows = [
        held("parameters"),
        held("frozen copy"),
        held("optimizer"),
        made("other arguments", "given", compiler),
        made("temporaries", "temporaries", compiler),
        made("results", "made", compiler),
        made("code", "code", compiler),
        ("total", lambda p: size(p.memory.total), compiler),
        made("(gradients)", "gradients", "shapes"),
        made("(keys and values)", "cache", "shapes"),
        counted("TFLOP", lambda p: f"{p.cost.flops / 1e12:.3g}"),
        ("ideal TFLOP", lambda p: f"{p.ideal_flops / chips / 1e12:.3g}", "sizes"),
        counted("TFLOP / ideal", lambda p: f"{p.cost.flops * chips / p.ideal_flops:.2f}"),
        counted("HBM traffic", lambda p: traffic(p.cost.hbm_bytes)),
    ]
    kinds = {kind for p in plan.programs if p.cost for kind in p.cost.sent}
    for kind in sorted(kinds):
        rows.append(counted(kind, lambda p, k=kind: traffic(p.cost.sent[k])))
        rows.append(counted("  calls", lambda p, k=kind: str(p.cost.calls[k])))
    if plan.target.chip.peak_flops is not None:
        rows += [limit("FLOPs", "compute"), limit("HBM", "memory")]
        rows += [limit("interconnect", "interconnect"), limit("its hops", "latency")]
        rows += [
            counted("s, at least", lambda p: f"{p.roofline.seconds:.3g}", "data sheet"),
            counted("share of peak ≤", lambda p: f"{p.peak_share:.0%}", "data sheet"),
        ]
    return rows


def size(num_bytes: int) -> str:
    """Binary units, as memory is sold and libtpu counts."""
    if abs(num_bytes) >= 0.1 * _GIB:
        return f"{num_bytes / _GIB:.2f} GiB"
    return f"{num_bytes / MIB:.1f} MiB"


def traffic(num_bytes: float) -> str:
    """Decimal units, as bandwidths are."""
    return f"{num_bytes / 1e9:.3g} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.3g} MB"
