"""The quickstart: the base model, plain fine-tuning, and fine-tuning with the conscience."""

from collections.abc import Callable
from pathlib import Path

from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.experiments.arms import BASE, Arm, run_arms
from emergent_alignment.runs.calibrating import with_calibration
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.settings import changed


def run_quickstart(
    config: EvaluationConfig, root: Path, setup: Setup, calibrated: Callable[[dict], None]
) -> None:
    """Calibrate, train and evaluate what is missing in `root`; `calibrated` is told the
    calibration before anything is trained."""
    config, calibration = with_calibration(config, setup, root / "calibration.json")
    calibrated(calibration)
    plain = changed(config, {"conscience.enabled": False})
    run_arms([Arm(BASE, config), Arm("plain", plain), Arm("conscience", config)], root, setup)
