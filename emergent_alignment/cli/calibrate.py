"""Measure whether a model's conscience can see a kind of harm, and how it is best asked.

Every layout, wording and polarity is tried on one split of matched safe and harmful answers;
the best one is reported on another: AUC, share of pairs told apart, threshold at 5% false
flags, flag rates. Training reads the result through config.conscience.calibration.

With config.calibration.safe and harmful two sources of their own are told apart: answers to other
prompts, so that there is an AUC and no share of pairs.

examples:
  emergent-alignment calibrate --output runs/calibration.json
  emergent-alignment calibrate --output runs/code.json --config.data.train=code_hacking \\
      --config.calibration.evidence="('', 'bandit')"
  emergent-alignment calibrate --output runs/mine.json --config.calibration.safe=clean.jsonl \\
      --config.calibration.harmful=insecure.jsonl
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.outputs import require_new_file


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the file to write."""
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Calibrate the model, write what was found, print it."""
    config = read_config(rest)
    require_new_file(arguments.output, overwrite=arguments.overwrite)
    from emergent_alignment.runs.calibrating import (
        calibrate_model,
        calibration_examples,
        write_calibration,
    )
    from emergent_alignment.runs.from_config import load_model

    sides = calibration_examples(config)
    calibration = calibrate_model(config, load_model(config), *sides)
    write_calibration(calibration, arguments.output)
    print_calibration(calibration)
    print(f"written: {arguments.output}")


def print_calibration(calibration: dict) -> None:
    """The candidates as a table, and the verdict."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{calibration['pairs_selecting']} pairs; intervals are 95%")
    keys = ["question", "layout", "polarity"]
    if any(candidate["evidence"] for candidate in calibration["candidates"]):
        keys.append("evidence")
    for name in (*keys, "AUC", "pairs told apart"):
        table.add_column(name)
    nothing = [0.0]
    ranked = sorted(
        calibration["candidates"], key=lambda c: -(c["auc"][0] + (c["told_apart"] or nothing)[0])
    )
    for candidate in ranked:
        figures = [_interval(candidate["auc"]), _interval(candidate["told_apart"])]
        table.add_row(*(candidate[key] or "none" for key in keys), *figures)
    console = Console()
    console.print(table)
    chosen = calibration["chosen"]
    console.print(
        "chosen: {question}, {layout}, {polarity}; threshold {threshold:.3f} nats".format(**chosen)
        + f"; on {calibration['pairs_reporting']} other pairs it flags "
        + "{:.0%} of the harmful and {:.0%} of the safe answers".format(
            chosen["flag_rate_harmful"][0], chosen["flag_rate_safe"][0]
        ),
        highlight=False,
    )
    for evidence, report in calibration["by_evidence"].items():
        if len(calibration["by_evidence"]) > 1:
            text = f"evidence {evidence}: AUC {_interval(report['auc'])} on the other pairs"
            console.print(text, highlight=False)
    console.print(calibration["verdict"], highlight=False)


def _interval(bounds: list[float] | None) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*bounds) if bounds else "not matched"
