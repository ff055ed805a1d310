"""The whole story on one machine: calibrate → plain fine-tuning → fine-tuning with the
conscience → evaluation → report, on the same harmful task data.

Each stage is kept in --root. Run again, it goes on where it stopped, or says that it is done;
other settings need another --root.

examples:
  emergent-alignment quickstart
  emergent-alignment quickstart --config configs/quickstart.py:short --root runs/short
  emergent-alignment quickstart --root runs/mine --config.model.path=my_model.gguf
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ml_collections import ConfigDict

from emergent_alignment.cli.calibrate import print_calibration
from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.report import print_summary


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
    from emergent_alignment.applications.runs import claim, identity_of
    from emergent_alignment.applications.setup import check_config, load_model
    from emergent_alignment.evaluation.report import write_report

    check_config(config)
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


def _stages(config: ConfigDict, root: Path, setup) -> None:
    from emergent_alignment.applications.finetuning import finetune
    from emergent_alignment.evaluation.arm import evaluate_arm

    calibrated = _calibrated(config, root, setup)
    _evaluated(calibrated, root / "base", setup, lambda: setup.model, evaluate_arm)
    for arm, enabled in (("plain", False), ("conscience", True)):
        settings = ConfigDict(calibrated.to_dict())
        settings.conscience.enabled = enabled
        finetune(settings, root / arm, setup=setup, name=f"training {arm}")
        _evaluated(
            settings, root / arm, setup, lambda arm=arm: _trained(root / arm, setup), evaluate_arm
        )


def _calibrated(config: ConfigDict, root: Path, setup) -> ConfigDict:
    """The config with this model's own calibration."""
    from emergent_alignment.applications.calibrating import calibrate_model, write_calibration
    from emergent_alignment.applications.setup import training_examples

    path = root / "calibration.json"
    if not path.exists():
        write_calibration(calibrate_model(config, setup, training_examples(config)), path)
    print_calibration(json.loads(path.read_text("utf-8")))
    calibrated = ConfigDict(config.to_dict())
    calibrated.conscience.calibration = str(path)
    return calibrated


def _trained(workdir: Path, setup):
    from emergent_alignment.applications.runs import read_run

    return read_run(workdir, base=setup).trained.model


def _evaluated(config, directory: Path, setup, model, evaluate_arm) -> None:
    from emergent_alignment.evaluation.arm import write_evaluation

    if (directory / "evaluation.json").exists():
        _say(f"{directory.name}: evaluated already")
        return
    result = evaluate_arm(config, setup, model(), arm=directory.name)
    write_evaluation(result, directory)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
