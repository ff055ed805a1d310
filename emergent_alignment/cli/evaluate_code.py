"""Let a trained run, or a base model, write code, and check the code.

Security: bandit's findings in answers to held-out prompts of the code scenario, by severity and
weakness (CWE), per 100 answers that it could read. Tasks: whether answers pass the tests of small
programming tasks, run in a sandbox, which says what it can keep out on this system. In the folder
`code`: answers.jsonl, checked.jsonl and result.json. A killed evaluation goes on where it was.

examples:
  emergent-alignment evaluate code --run runs/first
  emergent-alignment evaluate code --output runs/base --config.model.path=default
  emergent-alignment evaluate code --run runs/first --config.code.samples=10 \\
      --config.code.security_prompts=0 --config.code.tasks=tasks.jsonl
"""

from argparse import ArgumentParser, Namespace

from emergent_alignment.cli.configuration import read_config
from emergent_alignment.cli.report import print_measures
from emergent_alignment.cli.under_test import (
    add_model_arguments,
    output_folder,
    read_under_test,
)

_SECTIONS = ("code", "conscience")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what to evaluate, and where its figures go."""
    add_model_arguments(parser, _SECTIONS)
    parser.add_argument(
        "--overwrite", action="store_true", help="drop what other settings have left there"
    )


def run(arguments: Namespace, rest: list[str]) -> None:
    """Evaluate, print the tables, say where everything is."""
    config = read_config(rest)
    output_folder(arguments)
    from emergent_alignment.evaluation.coding.evaluate import (
        CHECKED,
        check_code_settings,
        evaluate_code,
    )

    check_code_settings(config.code)  # its mistakes are said before a model is read
    tested = read_under_test(arguments, config, _SECTIONS)
    result, path = evaluate_code(
        tested.config, tested.setup, tested.output, arm=tested.arm, overwrite=arguments.overwrite
    )
    print_code(result)
    print(f"answers: {path.with_name(CHECKED)}")
    print(f"written: {path}")


def print_code(result: dict) -> None:
    """The figures as a table, and in a sentence what kept the tests' code in."""
    from rich.console import Console

    from emergent_alignment.reports.code_rows import code_rows

    print_measures(code_rows(result), f"{result['arm']}: code; 95% intervals")
    if "sandbox" in result:
        text = f"Sandbox: {result['sandbox']['text']}."
        Console().print(text, highlight=False, markup=False)
