"""Compare arms over seeds: train, evaluate and report whatever is missing.

config.experiment names the arms. Each is a name and what it changes of the config:

  "base"                                     trains nothing
  "plain: conscience.enabled=False"
  "conscience"                               the config as it is
  "chance: conscience.verdicts=chance"       verdicts drawn at the rates of `conscience`
  "placebo: conscience.question=placebo"

An arm that changes config.calibration gets a calibration of its own.

In --root: calibration.json, a folder seed-N for each seed with a folder for each arm and a page
of its own, and experiment.html over all seeds. Run again, it goes on where it stopped, with more
arms or seeds than before if you like.

examples:
  emergent-alignment experiment --config configs/experiment.py --root runs/experiment
  emergent-alignment experiment --config configs/experiment.py:short --root runs/short
  emergent-alignment experiment --config configs/experiment.py --root runs/two \\
      --config.experiment.arms="('base', 'plain: conscience.enabled=False')" \\
      --config.experiment.seeds="(0, 1)"
"""

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emergent_alignment.cli.calibrate import print_calibration
from emergent_alignment.cli.configuration import HELP, read_config, with_changes
from emergent_alignment.cli.report import print_table
from emergent_alignment.errors import UserError
from emergent_alignment.settings import changed

if TYPE_CHECKING:
    from emergent_alignment.config import Config


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the folder that keeps everything."""
    parser.add_argument(
        "--root", type=Path, default=Path("runs/experiment"), help="where everything is kept"
    )
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Run the arms of every seed, write a page a seed and one over all."""
    config = read_config(rest)
    plan = planned(config)
    root = arguments.root
    from emergent_alignment.experiments.arms import check_arms, run_arms
    from emergent_alignment.reports.experiment_page import write_experiment_report
    from emergent_alignment.reports.results_page import write_report
    from emergent_alignment.runs.from_config import load_model
    from emergent_alignment.runs.workdir import claim, identity_of

    for words in plan.arms.values():
        with_changes(config, words)  # its mistakes are said before any work
    setup = load_model(config)
    claim(root, _without_plan(config), identity_of(setup))
    configs = _calibrated(config, plan, setup, root)
    arms = {seed: _arms(configs, seed) for seed in plan.seeds}
    for seed in plan.seeds:
        check_arms(arms[seed], root / f"seed-{seed}")
    for seed in plan.seeds:
        print(f"seed {seed}", file=sys.stderr, flush=True)
        folder = root / f"seed-{seed}"
        run_arms(arms[seed], folder, setup, plan.measures)
        write_report(folder)
    page, table = write_experiment_report(root, list(plan.arms))
    print_table(table, f"{root.name}: means over seeds, 95% intervals")
    print(f"report: {page.resolve()}")


@dataclass(frozen=True)
class ExperimentPlan:
    """The arms, each with the words that change its config; the seeds; what is measured."""

    arms: dict[str, list[str]]
    seeds: tuple[int, ...]
    measures: tuple[str, ...]


def planned(config: "Config") -> ExperimentPlan:
    """What config.experiment asks for. Raises UserError for names that are no folder's or stand
    twice, for changes that are not field=value, and for seeds that are none or stand twice."""
    wanted, arms = config.experiment, {}
    for place, text in enumerate(wanted.arms):
        name, _, changes = text.partition(":")
        where = f"config.experiment.arms[{place}]"
        if not name or set(name) & set("/\\ ") or name.startswith("."):
            raise UserError(
                f"{where}: {name!r} is no name for an arm; use letters, digits, - and _"
            )
        if name in arms:
            raise UserError(f"{where}: a second arm is named {name}; give it a name of its own")
        words = changes.split()
        wrong = [word for word in words if "=" not in word]
        if wrong:
            raise UserError(f"{where}: {wrong[0]!r} is not section.field=value")
        arms[name] = [f"--config.{word}" for word in words]
    seeds = wanted.seeds
    if not arms or not seeds or len(set(seeds)) < len(seeds):
        raise UserError("config.experiment: name at least one arm, and seeds that differ")
    return ExperimentPlan(arms, seeds, wanted.measures)


def _calibrated(config: "Config", plan: ExperimentPlan, setup, root: Path) -> dict[str, "Config"]:
    """Each arm's config, with the calibration that it goes by; what is missing is made."""
    from emergent_alignment.runs.calibrating import with_calibration

    configs, said = {}, set()
    for name, words in plan.arms.items():
        changed = with_changes(config, words)
        own = changed.calibration != config.calibration
        path = root / (f"calibration-{name}.json" if own else "calibration.json")
        calibrated, found = with_calibration(changed if own else config, setup, path)
        if path not in said:
            print_calibration(found)
        said.add(path)
        configs[name] = with_changes(calibrated, words)
    return configs


def _arms(configs: dict[str, "Config"], seed: int) -> list:
    from emergent_alignment.experiments.arms import Arm

    return [
        Arm(name, changed(_without_plan(config), {"seed": seed}))
        for name, config in configs.items()
    ]


def _without_plan(config: "Config") -> "Config":
    """The config, but that it does not say which other arms and seeds there are: more of them may
    be added to an experiment that has begun."""
    return changed(config, {"experiment": type(config)().experiment})
