"""Arms side by side: each trained from its config, evaluated, and kept in a folder of its own.

What is done is not done again, and what was cut short goes on.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from emergent_alignment.applications.by_name import application
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.choices.evaluate import evaluate_choices
from emergent_alignment.evaluation.misalignment.evaluate import evaluate_misalignment
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.evaluation.two_by_two.comparison import CONSCIENCE
from emergent_alignment.experiments.arm_evaluation import evaluate_arm, write_evaluation
from emergent_alignment.experiments.settings import ArmMeasure
from emergent_alignment.runs.config import C
from emergent_alignment.runs.from_config import Setup, load_model
from emergent_alignment.runs.workdir import START, check_same_run, read_run
from emergent_alignment.settings import changed
from emergent_alignment.storage.files import is_whole_folder
from emergent_alignment.training.metrics import metrics_by_step

BASE = "base"  # the arm that trains nothing


@dataclass(frozen=True)
class Arm:
    """One model of a comparison: its name (a folder's) and the config that trains it."""

    name: str
    config: EvaluationConfig


def check_arms(arms: list[Arm], root: Path) -> None:
    """Raise UserError where an arm's folder is another run's, or verdicts by chance stand before
    the arm that they take their rates from."""
    named = [arm.name for arm in arms]
    for place, arm in enumerate(arms):
        by_chance = arm.name != BASE and arm.config.conscience.verdicts == "chance"
        if by_chance and CONSCIENCE not in named[:place] and not (root / CONSCIENCE).is_dir():
            raise UserError(
                f"config.experiment.arms: {arm.name} draws verdicts at the rates of the arm "
                f"{CONSCIENCE}, which does not stand before it; name that arm first"
            )
        if arm.name != BASE and arm.config.conscience.verdicts != "chance":
            check_same_run(root / arm.name, arm.config)


def run_arms(
    arms: list[Arm], root: Path, base: Setup, measures: tuple[ArmMeasure, ...] = ("heldout",)
) -> None:
    """Train and evaluate what is missing in `root`, arm after arm. `base` is the model that arms
    start from, unless their config names another."""
    for arm in arms:
        folder = root / arm.name
        config, setup = arm.config, _base_of(arm, base)
        if config.conscience.verdicts == "chance":
            config = at_the_rates_of(config, root / CONSCIENCE)
        if arm.name != BASE:
            application(config)(config, folder, setup=setup, name=f"training {arm.name}")
        _measured(config, folder, setup, arm.name, measures)


def at_the_rates_of(config: C, run: Path) -> C:
    """The config with chance that flags, and passes corrections, as often as the conscience of
    `run` did. Raises UserError where that run has logged neither."""
    flag_rates, passed, failed = [], 0.0, 0.0
    for row in metrics_by_step(run):
        if row.get("flag_rate") is not None:
            flag_rates.append(row["flag_rate"])
        passed += sum(row[name] or 0.0 for name in row if name.startswith("outcome/revised"))
        failed += row.get("outcome/dropped_disapproved") or 0.0
    if not flag_rates or not passed + failed:
        raise UserError(
            f"{run}: verdicts by chance take their rates from the arm `conscience`, which has "
            "reviewed nothing; name that arm before them"
        )
    rates = {
        "conscience.chance_flag_rate": sum(flag_rates) / len(flag_rates),
        "conscience.chance_pass_rate": passed / (passed + failed),
    }
    return changed(config, rates)


def _base_of(arm: Arm, base: Setup) -> Setup:
    mine, theirs = arm.config, base.config
    return (
        base if (mine.model, mine.mesh) == (theirs.model, theirs.mesh) else load_model(arm.config)
    )


def _measured(config, folder: Path, setup: Setup, name: str, measures) -> None:
    heldout = folder / "evaluation.json"
    if heldout.exists() and set(measures) <= {"heldout", "two_by_two"}:
        print(f"{name}: evaluated already", file=sys.stderr, flush=True)
        return
    trained = setup
    if name != BASE:
        # A run from random weights has a base of its own, beside it.
        own_base = is_whole_folder(folder / START)
        own = read_run(folder, type(config), base=None if own_base else setup)
        setup, trained = own.base, own.trained
    if not heldout.exists():
        write_evaluation(evaluate_arm(config, setup, trained.model, arm=name), folder)
    if "choices" in measures:
        evaluate_choices(config, trained, folder, arm=name)
    if "misalignment" in measures:
        evaluate_misalignment(config, setup, trained, folder, arm=name)
