"""A plan as JSON, each figure with where it comes from."""

from dataclasses import asdict
from typing import Any

from emergent_alignment.parallel.mesh import told_sizes
from emergent_alignment.planning.plan import Plan, ProgramPlan

SOURCES = {
    "held": "computed from shapes and shardings",
    "cache": "computed from shapes and shardings; in given, made or temporaries",
    "gradients": "computed from shapes and shardings; in temporaries",
    "given, temporaries, made, code, total": "the compiler's memory_analysis(), or its refusal",
    "flops": "read from the compiled program; attention kernels computed from their shapes and "
    "the layout's blocks",
    "hbm_bytes, sent, calls": "read from the compiled program; bytes sent by the ring algorithm",
    "ideal_flops": "computed from the model's sizes",
    "roofline, peak_share": "computed from the program's counts and the data sheet, all work at "
    "its full rates: a bound, not a forecast",
    "link_bytes, hops": "what is sent, over the share of links that a collective's devices have, "
    "and the hops of all collectives one after the other; from the devices' places in the slice",
    "online": "the sum of its programs' bounds, all candidates flagged, every link tried",
    "memory limit": "what libtpu's compiler names as a TPU's; a GPU's as given",
}


def as_json(plan: Plan) -> dict[str, Any]:
    """Bytes, FLOPs and seconds, per chip unless it says otherwise."""
    sources = dict(SOURCES)
    if plan.target.compiled_for_cpu:
        sources["given, temporaries, made, code, total"] = (
            "memory_analysis() of the same program compiled for as many CPU devices: a GPU's "
            "compiler plans its temporaries otherwise"
        )
    return {
        "topology": plan.target.topology,
        "chips": len(plan.target.devices),
        "chip": asdict(plan.target.chip),
        "mesh": told_sizes(plan.mesh),
        "decode_tensor": plan.decode_tensor,
        "settings": plan.settings,
        "fits": plan.fits,
        "headroom_bytes": plan.headroom,
        "programs": [_program(program, len(plan.target.devices)) for program in plan.programs],
        "online": plan.online and asdict(plan.online) | {"ratio": plan.online.ratio},
        "sources": sources,
    }


def _program(program: ProgramPlan, chips: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": program.name,
        "shape": program.shape,
        "memory": asdict(program.memory) | {"total": program.memory.total},
        "ideal_flops_all_chips": program.ideal_flops,
        "peak_share": program.peak_share,
        "compile_seconds": round(program.compile_seconds, 1),
    }
    if program.cost is not None:
        cost = program.cost
        described |= {
            "flops": cost.flops,
            "compiled_over_ideal": cost.flops * chips / program.ideal_flops,
            "hbm_bytes": cost.hbm_bytes,
            "sent": dict(cost.sent),
            "calls": dict(cost.calls),
            "link_bytes": cost.link_bytes,
            "hops": cost.hops,
            "kernels": dict(cost.kernels),
            "copied": dict(cost.copied.most_common(5)),
        }
    if program.roofline is not None:
        limits = program.roofline
        described["roofline"] = asdict(limits) | {"seconds": limits.seconds, "limit": limits.limit}
    return described
