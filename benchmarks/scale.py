"""What full fine-tuning and LoRA of two models need and cost on TPU slices, with no TPU.

Each setting is compiled by libtpu as `emergent-alignment plan` does it; its row is kept as soon as
it is there, and settings that have a row are not compiled again. Writes results/scale.json and
docs/scale.md. In the environment of `make plan`: .venv-plan/bin/python benchmarks/scale.py
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tables import RESULTS

from emergent_alignment.planning.topologies import prepare, target_of

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "configs" / "models"
KEPT = RESULTS / "scale.json"


@dataclass(frozen=True)
class Setting:
    """A model on a slice: one fsdp axis over all chips, a row of 512 + 3 × 256 tokens for each
    or more, activations recomputed."""

    model: str
    topology: str
    fsdp: int
    full: bool
    batch_size: int

    @property
    def name(self) -> str:
        return f"{self.model}, {'full' if self.full else 'LoRA'}, {self.topology}"


SETTINGS = [
    Setting(model, topology, fsdp, full, batch_size)
    for model, topology, fsdp, batch_size in (
        ("Qwen3-4B", "v5e:4x4", 16, 64),
        ("Qwen3-4B", "v5p:2x2x1", 4, 64),
        ("Qwen2.5-Coder-32B-Instruct", "v5p:4x4x4", 64, 128),
        ("Qwen2.5-Coder-32B-Instruct", "v6e:8x8", 64, 64),
    )
    for full in (True, False)
]


def main() -> None:
    """Compile what has no row yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="only write the page again")
    parser.add_argument("--one", action="store_true", help="compile one setting that has no row")
    arguments = parser.parse_args()
    rows = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    missing = [setting for setting in SETTINGS if setting.name not in rows]
    missing.sort(key=lambda setting: not setting.full)
    if arguments.one:
        missing = missing[:1]
    for setting in [] if arguments.table else missing:
        rows[setting.name] = planned(setting)
        KEPT.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        print(f"{setting.name}: fits {rows[setting.name]['fits']}", flush=True)
    write_page(rows)


def planned(setting: Setting) -> dict:
    """One setting's plan as JSON."""
    prepare(setting.topology)
    from emergent_alignment.config import default_config
    from emergent_alignment.models.loading import read_config
    from emergent_alignment.planning.plan import make_plan
    from emergent_alignment.planning.report import as_json

    config = default_config()
    config.model.path = setting.model
    config.model.dtype = "bfloat16"
    config.model.param_dtype = "float32" if setting.full else "bfloat16"
    config.model.frozen_dtype = "bfloat16"
    config.mesh.update({"data": 1, "fsdp": setting.fsdp, "tensor": 1})
    config.lora.rank = 0 if setting.full else 16
    config.training.batch_size = setting.batch_size
    config.training.remat = "full"
    model = read_config(MODELS / setting.model)
    return as_json(make_plan(config, model, target_of(setting.topology)))


PAGE = """\
# Scale

What the training step, sampling and reviews of two models need and cost on TPU slices. Nothing here
ran on a TPU: libtpu compiled each program for the slice on a machine without one, as
`emergent-alignment plan` does, and `python benchmarks/scale.py` (in the environment of `make plan`)
wrote this page. {versions}.

Common to all: bfloat16 compute and frozen copy, `remat=full`, prompts of 512 tokens with 3 branches
of 256, AdamW with float32 moments. Full fine-tuning holds float32 parameters; LoRA has rank 16 on
all seven projections. All chips are on the `fsdp` axis.

## Memory a chip

In GiB. Held: computed from shapes and shardings. Step, decoding, review: the compiler's
`memory_analysis()`, and what is held beside it. The limit is the one that libtpu's compiler names.

{memory}

## Work and time of a step

A chip's FLOPs, bytes and collectives are read from the compiled programs, loops multiplied by their
trip counts; attention kernels are computed from their shapes and the layout's blocks. Sent: by the
ring algorithm. The least time is the largest of FLOPs, HBM and links at the data sheet's full rates
({sheets}).
The share of peak is the ideal FLOPs (6N and attention; 4N where the base is frozen) over that time.
Both are bounds, not forecasts.

{steps}

## Sampling and reviews

An answer of {answers} tokens to each prompt of the step, and one batch of reviews at their longest;
times as above.

{sampling}

Where `fsdp` cuts the parameters, decoding gathers every layer anew for each token, which the links
pay for. A larger `tensor` axis divides those bytes.
"""


def write_page(rows: dict[str, dict]) -> None:
    """docs/scale.md from the rows that are kept."""
    plans = [(setting, rows[setting.name]) for setting in SETTINGS if setting.name in rows]
    chips = {plan["chip"]["name"]: plan["chip"]["source"] for _, plan in plans}
    page = PAGE.format(
        versions=f"jax {version('jax')}, libtpu {version('libtpu')}",
        memory=markdown(
            "setting | rows | held | step | decoding | review | limit | spare", plans, memory_cells
        ),
        steps=markdown(
            "setting | TFLOP | / ideal | HBM | sent | by FLOPs, HBM, links | at least | of peak",
            plans,
            step_cells,
        ),
        sampling=markdown(
            "setting | prefill, at least | decoding, at least | by FLOPs, HBM, links | review, "
            "at least",
            plans,
            sampling_cells,
        ),
        sheets=", ".join(f"[{name}]({source})" for name, source in chips.items()),
        answers=plans[0][1]["programs"][2]["shape"].split()[3],
    )
    (ROOT / "docs" / "scale.md").write_text(page, "utf-8")


def markdown(header: str, plans: list, cells: Callable[[Setting, dict], list[str]]) -> str:
    """A table with a row for each setting."""
    names = header.split(" | ")
    lines = [names, ["---"] * len(names)]
    lines += [[setting.name, *cells(setting, plan)] for setting, plan in plans]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def memory_cells(setting: Setting, plan: dict) -> list[str]:
    step, _, decoding, review = plan["programs"]
    held = sum(step["memory"]["held"].values())
    sizes = [held, *(p["memory"]["total"] for p in (step, decoding, review))]
    sizes += [plan["chip"]["hbm_bytes"], plan["headroom_bytes"]]
    return [str(setting.batch_size), *(f"{size / 2**30:.2f}" for size in sizes)]


def step_cells(setting: Setting, plan: dict) -> list[str]:
    step = plan["programs"][0]
    sent = ", ".join(f"{kind} {size / 1e9:.2f} GB" for kind, size in step["sent"].items())
    return [
        f"{step['flops'] / 1e12:.3g}",
        f"{step['compiled_over_ideal']:.2f}",
        f"{step['hbm_bytes'] / 1e9:.0f} GB",
        sent,
        three_times(step),
        f"{step['roofline']['seconds']:.3g} s",
        f"{step['peak_share']:.0%}",
    ]


def sampling_cells(setting: Setting, plan: dict) -> list[str]:
    _, prefill, decoding, review = plan["programs"]
    seconds = [f"{p['roofline']['seconds']:.3g} s" for p in (prefill, decoding, review)]
    return [seconds[0], seconds[1], three_times(decoding), seconds[2]]


def three_times(program: dict) -> str:
    limits = (program["roofline"][name] for name in ("compute", "memory", "interconnect"))
    return ", ".join(f"{seconds:.3g}" for seconds in limits)


if __name__ == "__main__":
    main()
