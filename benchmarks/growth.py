"""How the cost of our training step grows with prompt length, branch length, batch and depth.

One setting at a time is varied around prompt 256, answers 128, batch 4 and all 30 layers (sizes of
SmolLM2-135M, random weights, LoRA, three branches, reference log-probs in the batch).
"compile" is what the first step takes beyond a later one: tracing, lowering and compiling. With
scanned layers it should not grow with depth. Beside seconds stands processor time, which other
programs disturb less.

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
from turns import ThisProcess, quiet_note, quiet_turns

import emergent_alignment as ea
from emergent_alignment.data.batches import Batch
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.models.model import random_params
from emergent_alignment.training.optimizer import OptimizerSection, make_optimizer
from emergent_alignment.training.state import initial_state
from emergent_alignment.training.step import compiled_step
from emergent_alignment.training.step_settings import StepSettings

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
    rows, measured = [], {}
    for name in args.varied:
        for value in VARIED[name]:
            sizes = CENTRE | {name: value}
            key = tuple(sizes.values())
            if key not in measured:  # all four pass through the centre
                own = dataclasses.replace(config, num_layers=sizes["layers"])
                measured[key] = measure(own, sizes, args) | {"machine": tables.machine()}
            rows.append({"varied": name} | sizes | measured[key])
            path = tables.keep_rows("growth", rows[-1:], ("varied", *CENTRE))
    header = ["varied", "value", "positions", "compile", "processor time", "step"]
    header += ["processor time", "positions a second"]
    tables.print_table("growth of the training step", header, [cells(row) for row in rows])
    print(quiet_note(rows))
    print(f"Kept in {path} and {plot(json.loads(path.read_text('utf-8')))}")


def measure(config, sizes: dict, args: argparse.Namespace) -> dict:
    """[seconds, processor seconds] of compiling the step, and of the step, some times each."""
    lora = LoraConfig(16, 32.0, False, ALL_PROJECTIONS)
    optimizer = make_optimizer(OptimizerSection(), 1000)
    frozen = random_params(config)
    state = initial_state(frozen, lora, optimizer, 0)
    batch = random_batch(config.vocab_size, sizes)
    made = {}

    def compiling() -> list[float]:
        jax.clear_caches()
        started = clock()
        step = compiled_step(StepSettings(config, lora, remat=args.remat), optimizer)
        made["program"] = step.lower(state, frozen, batch).compile()
        return (clock() - started).tolist()

    def stepping() -> list[float]:
        nonlocal state
        started = clock()
        state, _ = jax.block_until_ready(made["program"](state, frozen, batch))
        return (clock() - started).tolist()

    row = {"positions": batch.prompt.size + batch.branches.size, "others_share": []}
    for name, turn in (("compile", compiling), ("step", stepping)):
        turn()  # what is done once is not measured
        turns = quiet_turns(turn, [ThisProcess()], args.repeats, args.patience)
        row[name] = [took for took, _ in turns]
        row["others_share"] += [share for _, share in turns]
    return row


def clock() -> np.ndarray:
    """Now: [seconds, seconds of all threads of this process]."""
    return np.array([time.perf_counter(), time.process_time()])


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
    times = [tables.seconds_text(took) for name in ("compile", "step") for took in zip(*row[name])]
    rate = row["positions"] / median_seconds(row["step"])
    return [row["varied"], str(row[row["varied"]]), str(row["positions"]), *times, f"{rate:.0f}"]


def median_seconds(runs: list[list[float]]) -> float:
    """The median of the seconds of [seconds, processor seconds]."""
    return statistics.median(seconds for seconds, _ in runs)


def plot(rows: list[dict]) -> Path:
    """results/growth.png: seconds of a step in four panels, and to compile it."""
    panels = {}
    for name in VARIED:
        chosen = sorted((row for row in rows if row["varied"] == name), key=lambda row: row[name])
        lines = {"a step": [median_seconds(row["step"]) for row in chosen]}
        lines["compilation"] = [median_seconds(row["compile"]) for row in chosen]
        panels[name] = [row[name] for row in chosen], lines
    return plot_panels("growth", panels, "seconds")


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--varied", type=listed(VARIED), default=list(VARIED), help=f"{','.join(VARIED)} (all)")
    add("--repeats", type=positive, default=3, help="compilations and steps of each setting (3)")
    add("--patience", type=float, default=0, help="minutes a setting to wait for quiet turns (0)")
    add("--remat", choices=("none", "dots", "full"), default="full")
    return parser.parse_args()


if __name__ == "__main__":
    main()
