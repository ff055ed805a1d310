"""The base model and what the finished stages of a SELF-ALIGN work directory made of it, each
evaluated the same way: before and after, in one table."""

import sys
from collections.abc import Iterator
from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.choices.evaluate import evaluate_choices
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.experiments.arms import BASE
from emergent_alignment.runs.config import C, ModelSection
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.runs.workdir import read_run_file
from emergent_alignment.self_align.engraving import engraved
from emergent_alignment.self_align.stages import StageFolder, stage_folder
from emergent_alignment.self_align.work_directory import EVALUATION, STAGES
from emergent_alignment.settings import changed, from_dict
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.shapes import Number
from emergent_alignment.training.state import fingerprint

TRAINED = (3, 4)  # the stages that leave a model


def evaluate_stages(
    config: EvaluationConfig, workdir: Path, base: Setup, *, overwrite: bool = False
) -> dict[str, dict]:
    """Multiple choice of the base model and of each finished stage's model, as config.choices
    says; the results by arm, kept in WORKDIR/evaluation. Raises UserError where a folder holds
    scores of something else, and `overwrite` is not set."""
    results = {}
    for arm, setup in stage_models(workdir, base):
        folder = workdir / EVALUATION / arm
        results[arm], _ = evaluate_choices(config, setup, folder, arm=arm, overwrite=overwrite)
    return results


def stage_models(workdir: Path, base: Setup) -> Iterator[tuple[str, Setup]]:
    """("base", …), then each finished stage's name and model, adapters merged into its weights.
    A stage's run has started from the base model or from the one before it: its run.json says
    which."""
    yield BASE, base
    starts = [base]
    for number in TRAINED:
        folder = stage_folder(workdir, number)
        if not folder.done:
            print(f"{STAGES[number]}: not finished, left out", file=sys.stderr, flush=True)
            continue
        starts.append(_trained(folder, starts))
        yield STAGES[number], starts[-1]


def _trained(folder: StageFolder, starts: list[Setup]) -> Setup:
    frozen = read_run_file(folder.run)["frozen"]
    for start in starts:
        if fingerprint(start.model.params) == frozen:
            return engraved(folder, start)
    raise UserError(
        f"{folder.run}: trained from a model that is neither the base nor an earlier stage's; is "
        "config.model.path still the same?"
    )


def config_of(workdir: Path, config: C) -> C:
    """`config` with the model and the seed that the stages of `workdir` had. Raises UserError
    where no stage has begun there."""
    for number in STAGES:
        path = stage_folder(workdir, number).claim_file
        if not path.is_file():
            continue
        shape = {"settings": {"seed": Number(whole=True), "model": dict}}
        settings = read_json_file(path, shape, "put it back as it was")["settings"]
        model = from_dict(ModelSection, settings["model"], str(path))
        return changed(config, {"seed": settings["seed"], "model": model})
    raise UserError(
        f"{workdir}: no stage has begun here; run `emergent-alignment self-align --workdir` first"
    )
