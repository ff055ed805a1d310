"""Compare arms over seeds: train, evaluate and report whatever is missing.

config.experiment names the arms. Each is a name and what it changes of the config:

  "base"                                     trains nothing
  "plain: conscience.enabled=False"
  "conscience"                               the config as it is
  "chance: conscience.verdicts=chance"       verdicts drawn at the rates of `conscience`
  "placebo: conscience.question=placebo"

An arm that changes config.calibration gets a calibration of its own.

In --root: calibration.json, a folder seed-N for each seed with a folder for each arm and a page
of its own, and experiment.html over all seeds; with `two_by_two` among config.experiment.measures
two_by_two.html, too (docs/two_by_two.md). Run again, it goes on where it stopped, with more
arms or seeds than before if you like.

examples:
  emergent-alignment experiment --config experiment --root runs/experiment
  emergent-alignment experiment --config experiment:short --root runs/short
  emergent-alignment experiment --config experiment --root runs/two \\
      --config.experiment.arms="('base', 'plain: conscience.enabled=False')" \\
      --config.experiment.seeds="(0, 1)"
"""

from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path

from emergent_alignment.cli.calibrate import print_calibration
from emergent_alignment.cli.configuration import HELP, read_config, with_changes
from emergent_alignment.cli.evaluate_two_by_two import measure_and_report
from emergent_alignment.cli.report import print_experiment

_OF_ALL_ARMS = "two_by_two"  # the measure that is taken of all arms and seeds together


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the folder that keeps everything."""
    parser.add_argument(
        "--root", type=Path, default=Path("runs/experiment"), help="where everything is kept"
    )
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Run the arms of every seed, write a page a seed and one over all."""
    config, root = read_config(rest), arguments.root
    from emergent_alignment.experiments.plan import planned
    from emergent_alignment.experiments.seeds import run_seeds
    from emergent_alignment.reports.results_page import write_report
    from emergent_alignment.runs.from_config import load_model

    plan = planned(config.experiment)
    arms = {
        name: partial(with_changes, changes=[f"--config.{word}" for word in words])
        for name, words in plan.arms.items()
    }
    for change in arms.values():
        change(config)  # its mistakes are said before any work
    if _OF_ALL_ARMS in plan.measures:
        from emergent_alignment.experiments.two_by_two import check_two_by_two

        check_two_by_two(config)
    setup = load_model(config)
    for folder in run_seeds(config, plan, arms, root, setup, calibrated=print_calibration):
        write_report(folder)
    print_experiment(root, list(plan.arms))
    if _OF_ALL_ARMS in plan.measures:
        measure_and_report(config, root)
