"""Calibration of a config's model on its data, kept as a JSON file."""

from pathlib import Path

from emergent_alignment.conscience.calibration import Sweep, calibrate, read_calibration
from emergent_alignment.data.examples import Example
from emergent_alignment.data.sources import load_examples
from emergent_alignment.data.written_out import written_out
from emergent_alignment.errors import UserError
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress
from emergent_alignment.runs.config import C, RunConfig
from emergent_alignment.runs.from_config import (
    Setup,
    conscience_settings,
    given_pairs,
    training_examples,
)
from emergent_alignment.settings import changed
from emergent_alignment.storage.files import write_json


def calibration_examples(config: RunConfig) -> tuple[list[Example], list[Example] | None]:
    """What a model is calibrated on: the training rows' matched answers (of a run on given pairs
    alone: theirs), or those of the source that config.calibration names twice, or the two sources
    that it names. Raises UserError where only one is named."""
    safe, harmful = config.calibration.safe, config.calibration.harmful
    if not safe and not harmful:
        plain = changed(config, {"data.system": ""})
        return training_examples(plain) or given_pairs(plain).examples, None
    if not safe or not harmful:
        raise UserError("config.calibration: name both safe and harmful, or neither")
    ignored = config.data.ignored
    return load_examples(safe, ignored=ignored), (
        None if safe == harmful else load_examples(harmful, ignored=ignored)
    )


def calibrate_model(
    config: RunConfig,
    setup: Setup,
    examples: list[Example],
    harmful: list[Example] | None = None,
) -> dict:
    """Sweep what config.calibration names, on the examples' matched answers, or their targets
    against those of `harmful`."""
    wanted = config.calibration
    examples = written_out(examples, setup.chat)
    sweep = Sweep(
        wanted.questions,
        wanted.layouts,
        wanted.polarities,
        wanted.num_selecting,
        wanted.num_reporting,
        config.seed,
        wanted.evidence,
    )
    review = conscience_settings(config).review
    with in_force(setup.mesh), progress("calibrating") as meter:
        calibration = calibrate(
            setup.model, setup.chat, examples, sweep, review, harmful=harmful, progress=meter
        )
    return calibration | {"source": config.calibration.harmful or config.data.train}


def with_calibration(config: C, setup: Setup, path: Path) -> tuple[C, dict]:
    """The config with this model's own calibration on its training data, kept in `path` and made
    where there is none; and that calibration."""
    if not path.exists():
        sides = calibration_examples(config)
        write_calibration(calibrate_model(config, setup, *sides), path)
    calibrated = changed(config, {"conscience.calibration": str(path)})
    return calibrated, read_calibration(path)


def write_calibration(calibration: dict, path: Path) -> None:
    """The calibration as JSON, whole or not at all."""
    write_json(path, calibration)
