"""What training two models and the configs need and cost on TPU slices, with no TPU.

Each setting is compiled by libtpu as `emergent-alignment plan` does it; its row is kept as soon as
it is there, and settings that have a row are not compiled again. Writes results/scale.json and
docs/scale.md. In the environment of `make plan`: .venv-plan/bin/python benchmarks/scale.py
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tables import RESULTS

from emergent_alignment.parallel.mesh import shape_text
from emergent_alignment.planning.topologies import prepare, target_of
from emergent_alignment.storage.files import write_json

ROOT = Path(__file__).resolve().parents[1]
MODELS = Path("configs") / "models"
KEPT = RESULTS / "scale.json"
COMMON = {
    "model.dtype": "bfloat16",
    "model.frozen_dtype": "bfloat16",
    "mesh.data": 1,
    "training.remat": "full",
}


@dataclass(frozen=True)
class Setting:
    """A row: its name, a topology, and the words that `emergent-alignment plan` gets besides."""

    name: str
    topology: str
    words: tuple[str, ...]


def of_model(model: str, topology: str, fsdp: int, tensor: int, rows: int, full: bool) -> Setting:
    """The settings common to all models; full fine-tuning or LoRA of rank 16."""
    changes = COMMON | {
        "model.path": MODELS / model,
        "model.param_dtype": "float32" if full else "bfloat16",
        "mesh.fsdp": fsdp,
        "mesh.tensor": tensor,
        "training.batch_size": rows,
        "lora.rank": 0 if full else 16,
    }
    words = tuple(f"--config.{name}={value}" for name, value in changes.items())
    return Setting(f"{model}, {'full' if full else 'LoRA'}, {topology}", topology, words)


def of_config(name: str, topology: str, model: str = "", **changes: int) -> Setting:
    """A file of configs/ as it is, or with `changes`; `model` has the sizes of one that is not
    bundled."""
    words = [f"--config=configs/{name}.py"]
    if model:
        words.append(f"--config.model.path={MODELS / model}")
    words += [f"--config.{field}={value}" for field, value in changes.items()]
    said = ", online" if changes else ""
    return Setting(f"{name}, {topology}{said}", topology, tuple(words))


OF_MODELS = [
    of_model(*case, full)
    for case in (
        ("Qwen3-4B", "v5e:4x4", 16, 1, 64),
        ("Qwen3-4B", "v5p:2x2x1", 4, 1, 64),
        ("Qwen2.5-Coder-32B-Instruct", "v5p:4x4x4", 16, 4, 128),
        ("Qwen2.5-Coder-32B-Instruct", "v6e:8x8", 16, 4, 64),
    )
    for full in (True, False)
]
OF_CONFIGS = [
    of_config("quickstart", "cpu:1x16GB"),
    of_config("smollm2_135m", "v5e:2x2"),
    of_config("qwen3_4b_code_hacking", "v5e:4x4", "Qwen3-4B"),
    of_config("qwen3_4b_code_hacking", "v5p:2x2x1", "Qwen3-4B"),
    of_config("llama31_8b", "v5e:4x4", "Llama-3.1-8B-Instruct"),
    of_config("qwen25_coder_32b_code_hacking", "v5p:4x4x4", "Qwen2.5-Coder-32B-Instruct"),
    of_config("qwen25_coder_32b_code_hacking", "v6e:8x8", "Qwen2.5-Coder-32B-Instruct"),
    of_config("self_align_quickstart", "cpu:1x16GB"),
    of_config("self_align_llama_65b", "v5p:4x4x4", "LLaMA-65B"),
]
# As the configs are, but for how they decode; a decode mesh has its tensor axis of fsdp's.
SIDE_BY_SIDE = {"conscience.one_batch": True}
OF_ONLINE = [
    of_config(name, topology, model, **SIDE_BY_SIDE, **{"mesh.fsdp": 8, "mesh.decode.tensor": 8})
    for name, topology, model in (
        ("qwen3_4b_code_hacking", "v5e:4x4", "Qwen3-4B"),
        ("qwen25_coder_32b_code_hacking", "v5p:4x4x4", "Qwen2.5-Coder-32B-Instruct"),
    )
]
ONLINE_EVERY = (1, 8)  # K
SETTINGS = OF_MODELS + OF_CONFIGS + OF_ONLINE


def main() -> None:
    """Compile what has no row yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="only write the page again")
    parser.add_argument("--one", action="store_true", help="compile one setting that has no row")
    arguments = parser.parse_args()
    rows = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    missing = [setting for setting in SETTINGS if setting.name not in rows]
    # Hosts are planned for on CPU devices, whose number is set before JAX starts.
    missing.sort(key=lambda setting: not setting.topology.startswith("cpu"))
    if arguments.one:
        missing = missing[:1]
    for setting in [] if arguments.table else missing:
        rows[setting.name] = planned(setting)
        kept = {each.name: rows[each.name] for each in SETTINGS if each.name in rows}
        write_json(KEPT, kept)
        print(f"{setting.name}: fits {rows[setting.name]['fits']}", flush=True)
    write_page(rows)


def planned(setting: Setting) -> dict:
    """One setting's plan as JSON, with the seconds that it took and the FLOPs of 6N."""
    prepare(setting.topology)
    from emergent_alignment.cli.configuration import read_config
    from emergent_alignment.models.ideal import step_flops
    from emergent_alignment.models.loading import read_model_config as read_model_config
    from emergent_alignment.planning.plan import make_plan
    from emergent_alignment.planning.programs import largest_batch
    from emergent_alignment.planning.report import as_json
    from emergent_alignment.runs.config import decided

    config = read_config(list(setting.words))
    model = read_model_config(config.model.path)
    wall, processor = time.perf_counter(), time.process_time()
    target = target_of(setting.topology)
    plan = make_plan(config, model, target)
    content = as_json(plan)
    if setting in OF_ONLINE:
        content["by_every"] = by_every(plan, config, model, target)
    rows, (layout, _) = config.training.batch_size, largest_batch(decided(config))
    return content | {
        "words": setting.words,
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "six_n_flops": step_flops(model, layout, rows, None, with_reference=True),
    }


def by_every(plan, config, model, target) -> dict[str, dict]:
    """The online step for each K: the training step is planned for each, what a round runs is the
    same. All are compared with the training step of the plan."""
    from dataclasses import asdict

    from emergent_alignment.planning.online import online_step
    from emergent_alignment.planning.plan import make_plan
    from emergent_alignment.settings import changed

    limits = {program.name: program.roofline for program in plan.programs}
    by_setting = {}
    for every in ONLINE_EVERY:
        tried = changed(config, {"conscience.every": every})
        step = plan.programs[0]
        if every > 1:  # pairs have rows of their own
            (step,) = make_plan(tried, model, target, only_training=True).programs
        online = online_step(tried, limits | {STEP: step.roofline}, plan.programs[0].roofline)
        by_setting[str(every)] = asdict(online) | {
            "ratio": online.ratio,
            "step": step.roofline.seconds,
        }
    return by_setting


STEP = "training step"
STALE = """\
Rows with * were compiled before decoding had a layout of its own: where `fsdp` cuts the parameters,
theirs gathers every layer anew for each token, which the links pay for."""
PAGE = """\
# Scale

What training, sampling and reviews need and cost on TPU slices. Nothing here ran on a TPU: libtpu
compiled each program for the slice on a machine without one, as `emergent-alignment plan` does, and
`python benchmarks/scale.py` (in the environment of `make plan`) wrote this page. {versions}.

Two models first. Common to them: bfloat16 compute and frozen copy, `remat=full`, prompts of 512
tokens with 3 branches of 256, AdamW with float32 moments. Full fine-tuning holds float32
parameters; LoRA has rank 16 on all seven projections.

## Memory a chip

In GiB. Held: computed from shapes and shardings. Step, decoding, review: the compiler's
`memory_analysis()`, and what is held beside it. The limit is the one that libtpu's compiler names.

{memory}

## Work and time of a step

A chip's FLOPs, bytes and collectives are read from the compiled programs, loops multiplied by their
trip counts; attention kernels are computed from their shapes and the layout's blocks. Ideal FLOPs
are 6N and attention, and where the base is frozen 4N, attention and 6N of the adapters: what LoRA
computes again weighs more against its own, smaller ideal, so both ratios are given. Sent: by the
ring algorithm. The least time is the largest of FLOPs, HBM and links at the data sheet's full rates
({sheets}), and the hops of collectives.
The share of peak is the setting's own ideal over that time. Both are bounds, not forecasts.

{steps}

## Sampling and reviews

An answer of {answers} tokens to each prompt of the step, and one batch of reviews at their longest;
times as above.

{sampling}

{stale}

## An online step

A step of a run with its conscience, as the sum of its programs: the policy answers, the frozen copy
reviews, writes, reviews what it wrote and gives log-probs, and the step. Every candidate counts as
flagged and every link of the chain as tried; answers are {new_tokens} tokens long. K is
`conscience.every`: every K steps a round of listening to as many prompts as a step has, whose pairs
are trained on in K steps. The training step alone, with pairs, is what it is compared with, both by
the same rules. Decode mesh: data × tensor. `rewrite` and `fresh` are written in one batch.

{online}

What a round takes is decoding: for each token the parameters are read, and with a tensor axis two
all-reduces a layer wait for each other. Two decodes a round are more than 4 training steps here;
what divides them is K, `model.frozen_dtype=int8` (the first part), and more rows a decode
(`conscience.ahead`, not in this table).

Bounds err to one side. Optimistic: all work runs at the data sheet's full rates and overlaps
perfectly; a collective has the links of the axes that its devices lie along, and a hop takes 1 µs
that nothing hides, but starting a collective costs nothing; hosts take no time between programs.
Pessimistic: all are flagged, all answers and reviews are as long as they may be, and nothing of a
review is read beforehand. In the other tables rows with * have all links of a chip for every
collective, and none of their hops takes time.

## The configs

The files of [configs/](../configs) as they are, on what they were planned for, with rows as long as
their limits allow. The quickstart's laptop (`cpu:1x16GB`) is planned by memory alone. SELF-ALIGN's
are planned for stage 3, the step with the most rows; without the conscience it is all there is.

{configs}

## What a plan takes

Seconds of the processor, on a machine with 2 cores: {least} to {most} for the programs of a
row above, all compilers' threads added up. With little else running the wall time is less, here
down to {share:.0%} of it.
"""


def write_page(rows: dict[str, dict]) -> None:
    """docs/scale.md from the rows that are kept."""

    def kept(settings: list[Setting]) -> list[tuple[Setting, dict]]:
        return [(setting, rows[setting.name]) for setting in settings if setting.name in rows]

    of_models, of_configs, of_online = kept(OF_MODELS), kept(OF_CONFIGS), kept(OF_ONLINE)
    chips = {plan["chip"]["name"]: plan["chip"]["source"] for _, plan in of_models}
    plans = [plan for _, plan in of_models + of_configs + of_online]
    took = [plan["processor_seconds"] for plan in plans]
    page = PAGE.format(
        versions=f"jax {version('jax')}, libtpu {version('libtpu')}",
        memory=markdown(
            "setting | mesh | rows | held | step | decoding | review | limit | spare",
            of_models,
            memory_cells,
        ),
        steps=markdown(
            "setting | TFLOP | / ideal | / 6N | HBM | sent | by FLOPs, HBM, links | at least | "
            "of peak",
            of_models,
            step_cells,
        ),
        sampling=markdown(
            "setting | prefill, at least | decoding, at least | by FLOPs, HBM, links | review, "
            "at least",
            of_models,
            sampling_cells,
        ),
        configs=markdown(
            "config | mesh | step | most memory | limit | spare | / ideal | step, at least | "
            "decoding, at least",
            of_configs,
            config_cells,
        ),
        sheets=", ".join(f"[{name}]({source})" for name, source in chips.items()),
        answers=answer_tokens(of_models),
        stale=STALE if any(map(is_stale, plans)) else "",
        new_tokens=answer_tokens(of_online),
        online=markdown(
            "config | K | mesh | decode mesh | candidates | corrections | a review | log-probs | "
            "a round | training step | online step, at least | / step at K = 1",
            [
                (setting, plan | {"K": every})
                for setting, plan in of_online
                for every in plan["by_every"]
            ],
            online_cells,
        ),
        least=f"{min(took):.0f}",
        most=f"{max(took):.0f}",
        share=min(plan["wall_seconds"] / plan["processor_seconds"] for plan in plans),
    )
    (ROOT / "docs" / "scale.md").write_text(page, "utf-8")


def markdown(header: str, plans: list, cells: Callable[[dict], list[str]]) -> str:
    """A table with a row for each setting."""
    names = header.split(" | ")
    lines = [names, ["---"] * len(names)]
    lines += [[setting.name + " *" * is_stale(plan), *cells(plan)] for setting, plan in plans]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def answer_tokens(plans: list[tuple[Setting, dict]]) -> str:
    """How long the answers are that were planned; a dash where nothing was."""
    shapes = {program(plan, "decoding")["shape"] for _, plan in plans}
    return max((shape.split()[3] for shape in shapes), default="—", key=int)


def is_stale(plan: dict) -> bool:
    """Whether it was compiled before decoding had a layout, and collectives links, of their own."""
    return "decode_tensor" not in plan and plan["chips"] > 1


def program(plan: dict, name: str) -> dict:
    return next(one for one in plan["programs"] if one["name"] == name)


def mesh_text(plan: dict) -> str:
    return shape_text(plan["mesh"])


def memory_cells(plan: dict) -> list[str]:
    step, decoding, review = (program(plan, name) for name in (STEP, "decoding", "review"))
    held = sum(step["memory"]["held"].values())
    sizes = [held, *(p["memory"]["total"] for p in (step, decoding, review))]
    sizes += [plan["chip"]["hbm_bytes"], plan["headroom_bytes"]]
    rows = str(plan["settings"]["training.batch_size"])
    return [mesh_text(plan), rows, *(f"{size / 2**30:.2f}" for size in sizes)]


def step_cells(plan: dict) -> list[str]:
    step = plan["programs"][0]
    sent = ", ".join(f"{kind} {size / 1e9:.2f} GB" for kind, size in step["sent"].items())
    return [
        f"{step['flops'] / 1e12:.3g}",
        f"{step['compiled_over_ideal']:.2f}",
        f"{step['flops'] * plan['chips'] / plan['six_n_flops']:.2f}",
        f"{step['hbm_bytes'] / 1e9:.0f} GB",
        sent,
        three_times(step),
        least_seconds(step),
        f"{step['peak_share']:.0%}",
    ]


def sampling_cells(plan: dict) -> list[str]:
    prefill, decoding, review = (program(plan, n) for n in ("prefill", "decoding", "review"))
    seconds = [least_seconds(program) for program in (prefill, decoding, review)]
    return [seconds[0], seconds[1], three_times(decoding), seconds[2]]


def config_cells(plan: dict) -> list[str]:
    step, *others = plan["programs"]  # without the conscience nothing is sampled or reviewed
    most = max(program["memory"]["total"] for program in plan["programs"])
    sizes = (most, plan["chip"]["hbm_bytes"], plan["headroom_bytes"])
    return [
        mesh_text(plan),
        step["shape"],
        *(f"{size / 2**30:.2f}" for size in sizes),
        f"{step['compiled_over_ideal']:.2f}",
        least_seconds(step),
        least_seconds(others[1]) if others else "—",
    ]


def online_cells(plan: dict) -> list[str]:
    online, tensor = plan["by_every"][plan["K"]], plan["decode_tensor"]
    names = "decoding", "correction", "review", "reference"
    return [
        plan["K"],
        mesh_text(plan),
        f"{plan['chips'] // tensor} × {tensor}",
        *(least_seconds(program(plan, name)) for name in names),
        *(f"{online[name]:.3g} s" for name in ("round", "step", "seconds")),
        f"{online['ratio']:.2f}",
    ]


def least_seconds(program: dict) -> str:
    """By the roofline; a dash where no data sheet was read."""
    limits = program.get("roofline")
    return f"{limits['seconds']:.3g} s" if limits else "—"


def three_times(program: dict) -> str:
    limits = (program["roofline"][name] for name in ("compute", "memory", "interconnect"))
    return ", ".join(f"{seconds:.3g}" for seconds in limits)


if __name__ == "__main__":
    main()
