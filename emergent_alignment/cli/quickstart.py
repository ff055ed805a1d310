"""The whole story on one machine: calibrate → plain fine-tuning → fine-tuning with the
conscience → evaluation → report, on the same harmful task data.

Each stage is kept in --root. Run again, it goes on where it stopped, or says that it is done;
other settings need another --root.

examples:
  emergent-alignment quickstart
  emergent-alignment quickstart --config configs/quickstart.py:short --root runs/short
  emergent-alignment quickstart --root runs/mine --config.model.path=my_model.gguf
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from emergent_alignment.cli.calibrate import print_calibration
from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.report import print_summary
from emergent_alignment.settings import changed

if TYPE_CHECKING:
    from emergent_alignment.config import Config


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the folder that keeps every stage."""
    parser.add_argument(
        "--root", type=Path, default=Path("runs/quickstart"), help="where everything is kept"
    )
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Go through the stages that are not there yet, and write the report."""
    config = read_config(rest)
    root = arguments.root
    from emergent_alignment.reports.results_page import write_report
    from emergent_alignment.runs.from_config import load_model
    from emergent_alignment.runs.workdir import claim, identity_of

    if (root / "run.json").exists():
        _say(f"{root}: continuing with what is there")
    setup = load_model(config)
    claim(root, config, identity_of(setup))
    if (root / "report.html").exists():
        _say(f"{root}: done already; remove the folder, or choose another --root, to run anew")
    else:
        _stages(config, root, setup)
    page = write_report(root)
    print_summary(root)
    print(f"report: {page.resolve()}")


def _stages(config: "Config", root: Path, setup) -> None:
    from emergent_alignment.experiments.arms import BASE, Arm, run_arms
    from emergent_alignment.runs.calibrating import with_calibration

    calibrated, found = with_calibration(config, setup, root / "calibration.json")
    print_calibration(found)
    plain = changed(calibrated, {"conscience.enabled": False})
    arms = [Arm(BASE, calibrated), Arm("plain", plain), Arm("conscience", calibrated)]
    run_arms(arms, root, setup)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
