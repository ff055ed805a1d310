"""The whole story on one machine: calibrate → plain fine-tuning → fine-tuning with the
conscience → evaluation → report, on the same harmful task data.

Each stage is kept in --root. Run again, it goes on where it stopped, or says that it is done;
other settings need another --root.

examples:
  emergent-alignment quickstart
  emergent-alignment quickstart --config quickstart:short --root runs/short
  emergent-alignment quickstart --root runs/mine --config.model.path=my_model.gguf
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.cli.calibrate import print_calibration
from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.report import print_summary

DEFAULT = "quickstart"  # the config where none is named


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the folder that keeps every stage."""
    parser.add_argument(
        "--root", type=Path, default=Path("runs/quickstart"), help="where everything is kept"
    )
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Go through the stages that are not there yet, and write the report."""
    if not any(word.startswith("--config=") for word in rest):
        rest = [f"--config={DEFAULT}", *rest]
    config = read_config(rest)
    root = arguments.root
    from emergent_alignment.experiments.quickstart import run_quickstart
    from emergent_alignment.reports.results_page import write_report
    from emergent_alignment.runs.from_config import load_model
    from emergent_alignment.runs.workdir import claim, identity_of, work_alone

    if (root / "run.json").exists():
        _say(f"{root}: continuing with what is there")
    setup = load_model(config)
    with work_alone(root):
        claim(root, config, identity_of(setup))
        if (root / "report.html").exists():
            _say(f"{root}: done already; remove the folder, or choose another --root, to run anew")
        else:
            run_quickstart(config, root, setup, calibrated=print_calibration)
        page = write_report(root)
    print_summary(root)
    print(f"report: {page.resolve()}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
