"""How the cost of our training step grows with prompt length, branch length, batch and depth.

One setting at a time is varied around prompt 256, answers 128, batch 4 and all 30 layers (sizes of
SmolLM2-135M, random weights, LoRA, three branches, reference log-probs in the batch).
"compile" is what the first step takes beyond a later one: tracing, lowering and compiling, in
processor time. With scanned layers it should not grow with depth.

example:
  python benchmarks/growth.py --repeats 3
  python benchmarks/growth.py --varied layers
"""

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np
import tables
from arguments import listed, positive
from plots import plot_panels

import emergent_alignment as ea
from emergent_alignment.config import default_config
from emergent_alignment.data.batches import Batch
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.models.model import random_params
from emergent_alignment.training.optimizer import make_optimizer
from emergent_alignment.training.state import initial_state
from emergent_alignment.training.step import StepSettings, compiled_step

CENTRE = {"prompt": 256, "response": 128, "batch": 4, "layers": 30}
VARIED = {
    "prompt": (64, 128, 256, 512),
    "response": (32, 64, 128, 256),
    "batch": (1, 2, 4, 8),
    "layers": (4, 8, 15, 30),
}
ALL_PROJECTIONS = ("query", "key", "value", "output", "gate", "up", "down")


def main() -> None:
    """Measure every setting, print the table, keep rows and plot."""
    args = parse_arguments()
    config = ea.load("default").config
    rows = []
    for name in args.varied:
        for value in VARIED[name]:
            row = {"varied": name, **CENTRE, name: value}
            row |= measure(dataclasses.replace(config, num_layers=row["layers"]), row, args)
            rows.append(row | {"machine": tables.machine()})
            path = tables.keep_rows("growth", rows[-1:], ("varied", *CENTRE))
    header = [
        "varied",
        "value",
        "positions",
        "compile",
        "step",
        "processor time",
        "positions a second",
    ]
    tables.print_table("growth of the training step", header, [cells(row) for row in rows])
    print(f"Kept in {path} and {plot(json.loads(path.read_text('utf-8')))}")


def measure(config, row: dict, args: argparse.Namespace) -> dict:
    """Seconds to compile the step, and of some steps."""
    lora = LoraConfig(16, 32.0, False, ALL_PROJECTIONS)
    optimizer = make_optimizer(default_config().optimizer, 1000)
    frozen = random_params(config)
    state = initial_state(frozen, lora, optimizer, 0)
    step = compiled_step(StepSettings(config, lora, remat=args.remat), optimizer)
    batch = random_batch(config.vocab_size, row)
    started = time.process_time()
    step = step.lower(state, frozen, batch).compile()
    row = {"compile_seconds": time.process_time() - started, "seconds": [], "processor_seconds": []}
    for place in range(args.repeats + 1):
        started = time.perf_counter(), time.process_time()
        state, _ = jax.block_until_ready(step(state, frozen, batch))
        if place:  # the first warms up
            row["seconds"].append(time.perf_counter() - started[0])
            row["processor_seconds"].append(time.process_time() - started[1])
    return row | {"positions": batch.prompt.size + batch.branches.size}


def random_batch(vocabulary: int, row: dict) -> Batch:
    """Rows of full length."""
    draw = np.random.default_rng(0)
    rows, prompt, response = row["batch"], row["prompt"], row["response"]
    return Batch(
        draw.integers(0, vocabulary, (rows, prompt)).astype(np.int32),
        np.full(rows, prompt, np.int32),
        draw.integers(0, vocabulary, (rows, 3, response)).astype(np.int32),
        np.full((rows, 3), response, np.int32),
        np.ones(rows, bool),
        np.zeros((rows, 2), np.float32),
    )


def cells(row: dict) -> list[str]:
    """One line of the table."""
    rate = row["positions"] / statistics.median(row["seconds"])
    return [
        row["varied"],
        str(row[row["varied"]]),
        str(row["positions"]),
        f"{row['compile_seconds']:.1f} s",
        tables.seconds_text(row["seconds"]),
        tables.seconds_text(row["processor_seconds"]),
        f"{rate:.0f}",
    ]


def plot(rows: list[dict]) -> Path:
    """results/growth.png: seconds of a step in four panels, and to compile it."""
    panels = {}
    for name in VARIED:
        chosen = sorted((row for row in rows if row["varied"] == name), key=lambda row: row[name])
        lines = {"a step": [statistics.median(row["seconds"]) for row in chosen]}
        lines["compilation"] = [row["compile_seconds"] for row in chosen]
        panels[name] = [row[name] for row in chosen], lines
    return plot_panels("growth", panels, "seconds")


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--varied", type=listed(VARIED), default=list(VARIED), help=f"{','.join(VARIED)} (all)")
    add("--repeats", type=positive, default=3, help="timed steps of each setting (3)")
    add("--remat", choices=("none", "dots", "full"), default="full")
    return parser.parse_args()


if __name__ == "__main__":
    main()
