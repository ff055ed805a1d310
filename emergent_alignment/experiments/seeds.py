"""An experiment as it is carried out: one calibration for the arms that share it, then every arm of
every seed."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from emergent_alignment.experiments.arms import Arm, check_arms, run_arms
from emergent_alignment.experiments.plan import ExperimentPlan
from emergent_alignment.experiments.settings import ExperimentConfig
from emergent_alignment.runs.calibrating import with_calibration
from emergent_alignment.runs.config import C
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.runs.workdir import claim, identity_of, work_alone
from emergent_alignment.settings import changed

# A config → what an arm makes of it.
Change = Callable[[C], C]


def run_seeds(
    config: ExperimentConfig,
    plan: ExperimentPlan,
    arms: Mapping[str, Change],
    root: Path,
    setup: Setup,
    *,
    calibrated: Callable[[dict], None] = lambda calibration: None,
) -> Iterator[Path]:
    """Train and evaluate what is missing in `root`, by each arm's change of the config; the folder
    of each seed as soon as its arms are done. `calibrated` is told every calibration, made now or
    found.

    Raises UserError where `root`, or an arm's folder in it, is another config's: before anything
    is trained.
    """
    with work_alone(root):
        yield from _run_seeds(config, plan, arms, root, setup, calibrated)


def _run_seeds(config, plan, arms, root: Path, setup: Setup, calibrated) -> Iterator[Path]:
    claim(root, _without_plan(config), identity_of(setup))
    configs = _calibrated(config, arms, root, setup, calibrated)
    folders = {seed: root / f"seed-{seed}" for seed in plan.seeds}
    for seed, folder in folders.items():
        check_arms(_of_seed(configs, seed), folder)
    for seed, folder in folders.items():
        print(f"seed {seed}", file=sys.stderr, flush=True)
        run_arms(_of_seed(configs, seed), folder, setup, plan.measures)
        yield folder


def _calibrated(config, arms, root: Path, setup: Setup, told) -> dict[str, ExperimentConfig]:
    """Each arm's config, with the calibration that it goes by; what is missing is made. An arm that
    changes config.calibration has one of its own."""
    configs, said = {}, set()
    for name, change in arms.items():
        own = change(config).calibration != config.calibration
        path = root / (f"calibration-{name}.json" if own else "calibration.json")
        with_its_own, calibration = with_calibration(change(config) if own else config, setup, path)
        if path not in said:
            told(calibration)
        said.add(path)
        configs[name] = change(with_its_own)
    return configs


def _of_seed(configs: Mapping[str, ExperimentConfig], seed: int) -> list[Arm]:
    return [
        Arm(name, changed(_without_plan(config), {"seed": seed}))
        for name, config in configs.items()
    ]


def _without_plan(config: ExperimentConfig) -> ExperimentConfig:
    """The config, but that it does not say which other arms and seeds there are: more of them may
    be added to an experiment that has begun."""
    return changed(config, {"experiment": type(config)().experiment})
