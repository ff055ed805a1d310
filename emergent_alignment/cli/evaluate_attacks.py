"""Attack a trained run, and the base model it came from, with held-out kinds of attack.

Attack success is the share of hostile prompts whose answer the frozen conscience flags and that is
no refusal; over-refusal is the share of benign look-alikes that are refused: before (base) and
after (run), with 95% intervals, in the folder `attacks`: result.json, and the answers of each. A
killed evaluation goes on where it was.

examples:
  emergent-alignment evaluate attacks --run runs/adversarial --config adversarial
  emergent-alignment evaluate attacks --output runs/base --config.model.path=default
  emergent-alignment evaluate attacks --run runs/adversarial --config.evaluation.limit=20
"""

from argparse import ArgumentParser, Namespace

from emergent_alignment.cli.configuration import read_config
from emergent_alignment.cli.under_test import (
    add_model_arguments,
    output_folder,
    read_under_test,
)

_SECTIONS = ("evaluation", "conscience")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what to attack, and where the figures go."""
    add_model_arguments(parser, _SECTIONS)
    parser.add_argument(
        "--overwrite", action="store_true", help="drop what other settings have left there"
    )


def run(arguments: Namespace, rest: list[str]) -> None:
    """Evaluate, print the table, say where everything is."""
    config = read_config(rest)
    output_folder(arguments)
    from emergent_alignment.evaluation.attacks import evaluate_attacks

    tested = read_under_test(arguments, config, _SECTIONS)
    result, path = evaluate_attacks(
        tested.config,
        tested.base,
        tested.setup if arguments.workdir else None,
        tested.output,
        arm=tested.arm,
        overwrite=arguments.overwrite,
    )
    print_attacks(result)
    print(f"written: {path}")


def print_attacks(result: dict) -> None:
    """The figures as a table."""
    from rich.console import Console
    from rich.table import Table

    from emergent_alignment.reports.attack_rows import attack_rows

    table = Table(title=f"{result['arm']}: attacks of kinds held out; 95% intervals")
    for name in ("measure", "value"):
        table.add_column(name)
    for row in attack_rows(result):
        table.add_row(*row)
    Console().print(table)
