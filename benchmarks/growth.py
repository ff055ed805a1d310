"""How the cost of our training step grows with prompt length, branch length, batch and depth.

One setting at a time is varied around --prompt 256, --response 128, --batch 4 and all 30 layers
(sizes of SmolLM2-135M, random weights, LoRA, three branches, reference log-probs in the batch).
The first step of each depth is its compilation: with scanned layers it should not grow.

example:
  python benchmarks/growth.py --repeats 3
"""

import argparse
import dataclasses
import statistics
import time

import jax
import numpy as np
import tables
from arguments import positive
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
    for name, values in VARIED.items():
        for value in values:
            row = {"varied": name, **CENTRE, name: value}
            row |= measure(dataclasses.replace(config, num_layers=row["layers"]), row, args)
            rows.append(row | {"machine": tables.machine()})
            print(f"{name} {value}: first {row['first_step']:.1f} s, step {row['seconds']}")
    header = ["varied", "value", "positions", "first step", "step", "positions a second"]
    tables.print_table("growth of the training step", header, [cells(row) for row in rows])
    path = tables.keep_rows("growth", rows, ("varied", *CENTRE))
    print(f"Kept in {path} and {plot(rows)}")


def measure(config, row: dict, args: argparse.Namespace) -> dict:
    """Seconds of the first step (compilation included), and of some more."""
    lora = LoraConfig(16, 32.0, False, ALL_PROJECTIONS)
    optimizer = make_optimizer(default_config().optimizer, 1000)
    frozen = random_params(config)
    state = initial_state(frozen, lora, optimizer, 0)
    step = compiled_step(StepSettings(config, lora, remat=args.remat), optimizer)
    batch = random_batch(config.vocab_size, row)
    seconds = []
    for _ in range(args.repeats + 1):
        started = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, frozen, batch))
        seconds.append(time.perf_counter() - started)
    positions = batch.prompt.size + batch.branches.size
    return {"first_step": seconds[0], "seconds": seconds[1:], "positions": positions}


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
        f"{row['first_step']:.1f} s",
        tables.seconds_text(row["seconds"]),
        f"{rate:.0f}",
    ]


def plot(rows: list[dict]):
    """results/growth.png: seconds of a step in four panels, and of the first step in depth."""
    panels = {}
    for name in VARIED:
        chosen = [row for row in rows if row["varied"] == name]
        lines = {"a step": [statistics.median(row["seconds"]) for row in chosen]}
        if name == "layers":
            lines["first step"] = [row["first_step"] for row in chosen]
        panels[name] = [row[name] for row in chosen], lines
    return plot_panels("growth", panels, "seconds")


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--repeats", type=positive, default=3, help="steps after the first (default 3)")
    add("--remat", choices=("none", "dots", "full"), default="full")
    return parser.parse_args()


if __name__ == "__main__":
    main()
