"""What kinds of `evaluate` share: which model is under test, and the arm's results folder."""

import os
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergent_alignment.cli.configuration import HELP
from emergent_alignment.errors import UserError
from emergent_alignment.settings import changed

if TYPE_CHECKING:
    from emergent_alignment.config import Config


@dataclass(frozen=True)
class UnderTest:
    """The model of an evaluation: its `config` (with the command line's sections), its `setup`
    (runs/from_config.py), `base`, which holds its frozen copy, its results folder `output`, and
    its name `arm`."""

    config: "Config"
    setup: Any
    base: Any
    output: Path
    arm: str


def add_model_arguments(parser: ArgumentParser, sections: tuple[str, ...]) -> None:
    """Declare the model, the folder and the name; `sections` of the config come from the command
    line also where a run brings its own config."""
    parser.add_argument("--run", type=Path, dest="workdir", help="a run's work directory")
    parser.add_argument("--output", type=Path, help="the arm's results folder (default: --run)")
    parser.add_argument("--arm", help="its name in tables (default: the folder's name)")
    parser.epilog = (
        HELP + "  With --run, the settings are the run's own, but for the seed and the sections\n"
        f"  {', '.join(sections)}, which come from the command line.\n"
    )


def output_folder(arguments: Namespace) -> Path:
    """Where results go. Raises UserError where nothing says what to evaluate, or it is a file."""
    output = arguments.output or arguments.workdir
    if output is None:
        raise UserError("say what to evaluate: --run DIR, or --output DIR for a base model")
    if os.path.lexists(output) and not output.is_dir():
        raise UserError(f"{output}: there is a file of this name, or a broken link; name a folder")
    return output


def read_under_test(arguments: Namespace, config: "Config", sections: tuple[str, ...]) -> UnderTest:
    """Load the run's model, or the config's. Raises UserError where it cannot be read."""
    from emergent_alignment.runs.from_config import load_model
    from emergent_alignment.runs.workdir import read_run

    output = output_folder(arguments)
    if arguments.workdir is None:
        setup = base = load_model(config)
    else:
        trained_run = read_run(arguments.workdir, type(config))
        setup, base = trained_run.trained, trained_run.base
        asked = {name: getattr(config, name) for name in (*sections, "seed")}
        config = changed(setup.config, asked)
    name = arguments.arm or os.path.basename(os.path.realpath(output))
    return UnderTest(config, setup, base, output, name)
