"""Our training step under the settings that decide its speed, one changed at a time.

SmolLM2-135M's sizes, random weights, prompt 256, answers 128, batch 4, three branches, reference
log-probs in the batch. All variants take turns, and their losses must agree. Ratios are variant /
default: above 1, the variant takes longer. Temporaries are XLA's own account.

example:
  python benchmarks/variants.py --repeats 5
  python benchmarks/variants.py --full
"""

import argparse
import time
from dataclasses import replace

import jax
import tables
from arguments import positive
from growth import ALL_PROJECTIONS, CENTRE, random_batch
from turns import ThisProcess, quiet_note, quiet_turns

import emergent_alignment as ea
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.models.model import random_params
from emergent_alignment.training.optimizer import OptimizerSection, make_optimizer
from emergent_alignment.training.state import initial_state
from emergent_alignment.training.step import compiled_step
from emergent_alignment.training.step_settings import StepSettings

TOLERANCE = 1e-3
DEFAULT = "default"
VARIANTS = {
    DEFAULT: {},
    "remat dots": {"remat": "dots"},
    "remat full": {"remat": "full"},
    "attention dense": {"attention": "dense"},
    "64 tokens meet the vocabulary at once": {"chunk_size": 64},
    "1,024 tokens meet the vocabulary at once": {"chunk_size": 1024},
    "2 microbatches": {"accumulation": 2},
}


def main() -> None:
    """Compile all, compare, measure in turns, print the table, keep the row."""
    args = parse_arguments()
    config = replace(ea.load("default").config, num_layers=args.layers)
    lora = None if args.full else LoraConfig(16, 32.0, False, ALL_PROJECTIONS)
    optimizer = make_optimizer(OptimizerSection(), 1000)
    frozen, batch = random_params(config), random_batch(config.vocab_size, CENTRE)
    state = initial_state(frozen, lora, optimizer, 0)
    settings = StepSettings(config, lora)
    programs = {
        name: compiled_step(replace(settings, **changes), optimizer)
        .lower(state, frozen, batch)
        .compile()
        for name, changes in VARIANTS.items()
    }

    def step(name: str) -> list[float]:
        nonlocal state
        started = time.perf_counter(), time.process_time()
        state, _ = jax.block_until_ready(programs[name](state, frozen, batch))
        return [time.perf_counter() - started[0], time.process_time() - started[1]]

    compare(lora, optimizer, frozen, batch, programs)
    turns = quiet_turns(
        lambda: {name: step(name) for name in programs},
        [ThisProcess()],
        args.repeats,
        args.patience,
    )
    report(args, programs, turns)


def compare(lora, optimizer, frozen: dict, batch, programs: dict) -> None:
    """Raises SystemExit where the losses of a first step differ."""
    losses = {}
    for name, program in programs.items():
        fresh = initial_state(frozen, lora, optimizer, 0)
        losses[name] = float(program(fresh, frozen, batch)[1]["loss"])
    furthest = max(abs(loss - losses[DEFAULT]) for loss in losses.values())
    if not furthest <= TOLERANCE:
        raise SystemExit(f"losses differ by {furthest:.2g}; nothing was timed: {losses}")


def report(args: argparse.Namespace, programs: dict, turns: list) -> None:
    """The table and the kept row."""
    row = CENTRE | {"full": args.full, "layers": args.layers}
    for place, name in enumerate(("seconds", "processor_seconds")):
        row[name] = {key: [took[key][place] for took, _ in turns] for key in programs}
    row["temporary_bytes"] = {
        name: program.memory_analysis().temp_size_in_bytes for name, program in programs.items()
    }
    row |= {"others_share": [share for _, share in turns], "machine": tables.machine()}
    cells = [
        [
            name,
            tables.seconds_text(row["seconds"][name]),
            *(
                str(tables.ratio_of_pairs(row[kind][DEFAULT], row[kind][name]))
                for kind in ("seconds", "processor_seconds")
            ),
            tables.bytes_text(row["temporary_bytes"][name]),
        ]
        for name in programs
    ]
    header = ["variant", "a step", "to the default", "by processor time", "temporaries"]
    title = f"The step, {'full' if args.full else 'LoRA'}, {args.layers} layers"
    tables.print_table(title, header, cells)
    print(quiet_note([row]))
    print(f"Kept in {tables.keep_rows('variants', [row], ('full', 'layers'))}")


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--layers", type=positive, default=30, help="depth (30)")
    add("--full", action="store_true", help="train all parameters instead of LoRA")
    add("--repeats", type=positive, default=5, help="steps of each variant (5)")
    add("--patience", type=float, default=0, help="minutes to wait for quiet turns (0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
