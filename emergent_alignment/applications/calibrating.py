"""Calibration of a config's model on its data, kept as a JSON file."""

import json
import os
from pathlib import Path

from ml_collections import ConfigDict

from emergent_alignment.applications.setup import Setup, conscience_settings
from emergent_alignment.conscience.calibration import Sweep, calibrate
from emergent_alignment.data.sources import Example
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress


def calibrate_model(config: ConfigDict, setup: Setup, examples: list[Example]) -> dict:
    """Sweep what config.calibration names, on the examples' matched answers."""
    wanted = config.calibration
    sweep = Sweep(
        tuple(wanted.questions),
        tuple(wanted.layouts),
        tuple(wanted.polarities),
        wanted.num_selecting,
        wanted.num_reporting,
        config.seed,
    )
    review = conscience_settings(config).review
    with in_force(setup.mesh), progress("calibrating") as meter:
        found = calibrate(setup.model, setup.chat, examples, sweep, review, progress=meter)
    return found | {"source": config.data.train}


def write_calibration(found: dict, path: Path) -> None:
    """The calibration as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    os.replace(partial, path)
