"""The two-by-two of a run, or of every arm and seed of an experiment."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.evaluation.two_by_two.evaluate import (
    Measured,
    evaluate_two_by_two,
    require_form,
)
from emergent_alignment.evaluation.two_by_two.judges import make_judges, require_judges
from emergent_alignment.evaluation.two_by_two.judging import CheckedJudge, check_judges
from emergent_alignment.evaluation.two_by_two.results import (
    BASE_ARM,
    PLAIN_ARM,
    TWO_BY_TWO,
    arm_folders,
    seed_folders,
)
from emergent_alignment.experiments.settings import ExperimentConfig
from emergent_alignment.runs.from_config import Setup, load_model, training_examples
from emergent_alignment.runs.workdir import START, read_run, run_config
from emergent_alignment.settings import changed
from emergent_alignment.storage.files import is_whole_folder

_SECTIONS = ("two_by_two", "misalignment")  # of these the caller's config counts, not the run's


@dataclass(frozen=True)
class Wanted:
    """What is to be measured: an arm's folder, the config, and the steps (0: the base model)."""

    folder: Path
    config: EvaluationConfig
    steps: tuple[int, ...]


def measure_two_by_two(
    config: EvaluationConfig, path: Path, *, overwrite: bool = False
) -> Iterator[tuple[dict, Path]]:
    """Every result, and its file, of a run's work directory, or of an experiment's folder with its
    seeds and arms; what is there already is kept.

    Raises UserError for whatever of the folder, the form, the checkpoints or the judges cannot be
    used, before anything is sampled.
    """
    wanted = list(wanted_of(config, path))
    trained = next(one for one in wanted if one.folder.name != BASE_ARM)
    require_form(config.two_by_two, training_examples(trained.config), trained.config.data.train)
    judges = list(make_judges(trained.config, base := load_model(trained.config)))
    checked = check_judges(judges, config.two_by_two, path / f"{TWO_BY_TWO}-judges")
    for one in wanted:
        yield from _measured(one, base, checked, overwrite)


def check_two_by_two(config: ExperimentConfig) -> None:
    """Raise UserError where what config.experiment trains could not be measured: before it is."""
    arms = {text.partition(":")[0] for text in config.experiment.arms}
    missing = [name for name in (BASE_ARM, PLAIN_ARM) if name not in arms]
    if missing:
        raise UserError(
            f"config.experiment.arms: there is no arm {missing[0]!r}, and two_by_two takes every "
            "share from base and plain; add it"
        )
    training, steps = config.training, config.two_by_two.steps
    ends = range(training.checkpoint_every, training.steps + 1, training.checkpoint_every)
    there = sorted({*ends, training.steps})[-max(training.keep_checkpoints, 1) :]
    unkept = [step for step in steps if step not in there]
    if unkept:
        raise UserError(
            f"config.two_by_two.steps: there will be no checkpoint after {unkept[0]} steps; set "
            "config.training.checkpoint_every and keep_checkpoints so that it is kept"
        )
    require_form(config.two_by_two, training_examples(config), config.data.train)
    require_judges(config)


def wanted_of(config: EvaluationConfig, path: Path) -> Iterator[Wanted]:
    """What there is to measure in a run's work directory, or in an experiment's folder: of each arm
    what it came to, and of plain its checkpoints after config.two_by_two.steps, too. Raises
    UserError where base, plain or a checkpoint is missing."""
    seeds = seed_folders(path)
    if not seeds:
        yield _wanted_of_arm(config, path, early=True)
    for seed in seeds:
        base, *trained = arm_folders(seed)
        wanted = [_wanted_of_arm(config, arm, early=arm.name == PLAIN_ARM) for arm in trained]
        yield Wanted(base, wanted[0].config, (0,))
        yield from wanted


def _wanted_of_arm(config: EvaluationConfig, folder: Path, *, early: bool) -> Wanted:
    own = run_config(folder, type(config))
    there = checkpoint_steps(folder)
    if not there:
        raise UserError(f"{folder}: there is no checkpoint yet; run `emergent-alignment train`")
    asked = config.two_by_two.steps if early else ()
    missing = [step for step in asked if step not in there]
    if missing:
        raise UserError(
            f"config.two_by_two.steps: {folder} keeps no checkpoint after {missing[0]} steps, but "
            f"after {', '.join(map(str, there))}; train it with other "
            "training.checkpoint_every and keep_checkpoints"
        )
    sections = {name: getattr(config, name) for name in _SECTIONS}
    # Its own system text has other words of its own.
    rephrased = config.two_by_two.rephrased or own.two_by_two.rephrased
    measured = changed(changed(own, sections), {"two_by_two.rephrased": rephrased})
    return Wanted(folder, measured, tuple(sorted({*asked, there[-1]})))


def checkpoint_steps(folder: Path) -> list[int]:
    """After how many steps there are checkpoints of a run."""
    names = [path.name for path in (folder / "checkpoints").glob("*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdigit())


def _measured(
    wanted: Wanted, base: Setup, judges: list[CheckedJudge], overwrite: bool
) -> Iterator[tuple[dict, Path]]:
    name = wanted.folder.resolve().name
    for step in wanted.steps:
        measured = Measured(name, 0, base, base)
        if step:
            own_start = is_whole_folder(wanted.folder / START)
            run = read_run(
                wanted.folder, type(wanted.config), base=None if own_start else base, step=step
            )
            measured = Measured(name, step, run.trained, run.base)
        texts = told_texts(wanted.config) if step and step == wanted.steps[-1] else {}
        for told, system in {"": "", **texts}.items():
            one = replace(measured, told=told, system=system)
            yield evaluate_two_by_two(
                wanted.config, one, judges, wanted.folder, overwrite=overwrite
            )


def told_texts(config: EvaluationConfig) -> dict[str, str]:
    """The system texts under which what a config has trained is measured, too (results.TOLD): the
    one that training had, and other words for it where config.two_by_two has them."""
    if not config.data.system:
        return {}
    texts = {"trained": config.data.system, "rephrased": config.two_by_two.rephrased}
    return {told: text for told, text in texts.items() if text}
