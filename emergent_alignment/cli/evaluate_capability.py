"""Run tasks of lm-evaluation-harness on a trained run, or a base model.

Tasks are the harness's own, or task files (.yaml) of yours. Their data is fetched from the
Hugging Face hub the first time; without a network it must be there already. In the folder
`capability`: result.json, and samples-TASK.jsonl with every prompt and answer.

examples:
  emergent-alignment evaluate capability --run runs/first \\
      --config.capability.tasks=arc_easy,hellaswag --config.capability.limit=200
  emergent-alignment evaluate capability --output runs/base --config.model.path=default \\
      --config.capability.include=my_tasks --config.capability.tasks=mine
"""

from argparse import ArgumentParser, Namespace

from emergent_alignment.cli.configuration import read_config
from emergent_alignment.cli.outputs import require_new_file
from emergent_alignment.cli.under_test import (
    add_model_arguments,
    output_folder,
    read_under_test,
)

_SECTIONS = ("capability",)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what to evaluate, and where its figures go."""
    add_model_arguments(parser, _SECTIONS)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result")


def run(arguments: Namespace, rest: list[str]) -> None:
    """Evaluate, print the table, say where everything is."""
    config = read_config(rest)
    folder = output_folder(arguments)
    from emergent_alignment.evaluation.capability import (
        CAPABILITY_FOLDER,
        CAPABILITY_RESULT,
        evaluate_capability,
        load_harness_tasks,
    )

    require_new_file(folder / CAPABILITY_FOLDER / CAPABILITY_RESULT, overwrite=arguments.overwrite)
    tasks = load_harness_tasks(config.capability)  # its mistakes are said before a model is read
    tested = read_under_test(arguments, config, _SECTIONS)
    result, path = evaluate_capability(
        tested.config, tested.setup, tasks, tested.output, arm=tested.arm
    )
    print_capability(result)
    print(f"samples: {path.parent}/samples-*.jsonl")
    print(f"written: {path}")


def print_capability(result: dict) -> None:
    """Every metric of every task, with its interval."""
    from rich.console import Console
    from rich.table import Table

    from emergent_alignment.reports.results_folder import as_interval

    table = Table(
        title=f"{result['arm']}: lm-evaluation-harness {result['harness']}; 95% intervals"
    )
    for name in ("task", "version", "few-shot", "metric", "value", "documents"):
        table.add_column(name)
    for name, task in result["tasks"].items():
        for metric, value in task["metrics"].items():
            interval = as_interval(value)
            cells = (task["version"], task["fewshot"], metric, interval.text(3), interval.n)
            table.add_row(name, *("" if cell is None else str(cell) for cell in cells))
    Console().print(table)
