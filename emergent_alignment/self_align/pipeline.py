"""The four stages in order: what is done is not done again, what was killed goes on, and a
change upstream is noticed."""

import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first, together
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.runs.from_config import Setup, load_model
from emergent_alignment.runs.workdir import work_alone
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.self_align.stages import (
    StageFolder,
    StageRun,
    digest_of,
    stage_folder,
)
from emergent_alignment.self_align.work_directory import STAGES
from emergent_alignment.settings import as_dict, check_settings, value_of
from emergent_alignment.training.state import fingerprint

# Where a stage's `check(config)`, `run(stage)` and FILES live, the fields of its section that may
# name a file of the user's.
MODULES = {1: "instructions.stage", 2: "answers.stage", 3: "engraving", 4: "reinforcement.stage"}
# The sections of the config that a stage's result depends on, beside its own.
SHARED = ("seed", "model")
TRAINING = ("lora", "data", "optimizer", "training", "loss")
SECTIONS = {
    1: (),
    2: ("conscience", "sampling"),
    3: (*TRAINING, "conscience", "sampling"),
    4: (*TRAINING, "conscience", "sampling"),
}


def self_align(
    config: SelfAlignConfig,
    workdir: Path,
    stages: Sequence[int] = tuple(STAGES),
    *,
    setup: Setup | None = None,
) -> Setup:
    """Run the stages that are asked for and not done yet, each in its folder of `workdir`.

    Returns the base model. Raises UserError before any work where a setting, a file or a folder
    is not right: another run's, or an earlier stage that is asked for by none and not done.
    Several hosts (parallel/hosts.py) call it with the same config and a `workdir` that all reach.
    """
    with together():
        check_settings(config)
        for number in stages:
            _of_stage(number, "check")(config)
    setup = setup or load_model(config)
    with work_alone(workdir):
        _check_folders(config, workdir, setup, stages)
        for number in sorted(stages):
            _run_stage(number, config, workdir, setup)
    return setup


def parse_stages(text: str) -> tuple[int, ...]:
    """ "1,2" or "2-4" as numbers in order. Raises UserError for anything else."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        try:
            numbers |= set(range(int(first), int(last or first) + 1))
        except ValueError:
            numbers.add(0)
    if not numbers or not numbers <= STAGES.keys():
        known = ", ".join(f"{number} ({name})" for number, name in STAGES.items())
        raise UserError(f"--stages: {text!r} names no stages; there are {known}, as in 1,2 or 2-4")
    return tuple(sorted(numbers))


def _check_folders(
    config: SelfAlignConfig, workdir: Path, setup: Setup, stages: Sequence[int]
) -> None:
    """Raise UserError for a folder that is another run's, was made before a change of the
    settings, or is needed and not finished."""
    for number in range(1, max(stages) + 1):
        folder = stage_folder(workdir, number)
        if number not in stages:
            folder.manifest()
        if folder.path.exists() and all(
            inputs.done for inputs in _inputs(workdir, number).values()
        ):
            folder.claim(_identity(number, config, workdir, setup))


def _inputs(workdir: Path, number: int) -> dict[int, StageFolder]:
    return {earlier: stage_folder(workdir, earlier) for earlier in range(1, number)}


def _run_stage(number: int, config: SelfAlignConfig, workdir: Path, setup: Setup) -> None:
    folder, name = stage_folder(workdir, number), f"stage {number}, {STAGES[number]}"
    identity = _identity(number, config, workdir, setup)
    folder.claim(identity)
    if folder.done:
        folder.manifest()
        _say(f"{name}: done already")
        return
    started = time.monotonic()
    with in_force(setup.mesh):
        result = _of_stage(number, "run")(StageRun(config, folder, _inputs(workdir, number), setup))
    folder.finish(identity, result, time.monotonic() - started)
    counts = {key: value for key, value in result.counts.items() if isinstance(value, int | float)}
    _say(f"{name}: {', '.join(f'{k} {v:g}' for k, v in counts.items())}")


def _say(line: str) -> None:
    if is_first():
        print(line, file=sys.stderr, flush=True)


def _identity(number: int, config: SelfAlignConfig, workdir: Path, setup: Setup) -> dict:
    """What decides a stage's result: its settings, the files that they name, the model, and what
    earlier stages made."""
    settings = as_dict(config)
    return {
        "stage": number,
        "settings": {name: settings[name] for name in (*SHARED, *SECTIONS[number])}
        | {STAGES[number]: settings["self_align"][STAGES[number]]},
        "files": _files(number, config),
        "parameters": fingerprint(setup.model.params),
        "inputs": {
            STAGES[earlier]: folder.made_digest()
            for earlier, folder in _inputs(workdir, number).items()
        },
    }


def _files(number: int, config: SelfAlignConfig) -> dict[str, str]:
    """Digests of the files that a stage's settings name; none of what the package brings."""
    section = getattr(config.self_align, STAGES[number])
    named = {name: Path(value_of(section, name)) for name in _of_stage(number, "FILES")}
    return {name: digest for name, path in named.items() if (digest := digest_of(path))}


def _of_stage(number: int, name: str) -> Any:
    return getattr(import_module(f"emergent_alignment.self_align.{MODULES[number]}"), name)
