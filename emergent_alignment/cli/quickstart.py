"""The whole story on one machine: calibrate, fine-tune plainly, with the conscience and with one
that decides by chance, measure what each has learnt and which harm, report.

It is `experiment` with a config and a folder of its own. Each stage is kept in --root. Run again,
it goes on where it stopped; other settings need another --root.

examples:
  emergent-alignment quickstart
  emergent-alignment quickstart --config quickstart:short --root runs/short
  emergent-alignment quickstart --root runs/mine --config.model.path=my_model.gguf
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.cli import experiment
from emergent_alignment.cli.configuration import HELP

DEFAULT = "quickstart"  # the config where none is named


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the folder that keeps every stage."""
    parser.add_argument(
        "--root", type=Path, default=Path("runs/quickstart"), help="where everything is kept"
    )
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Go through the stages that are not there yet, and write the reports."""
    if not any(word.startswith("--config=") for word in rest):
        rest = [f"--config={DEFAULT}", *rest]
    experiment.run(arguments, rest)
