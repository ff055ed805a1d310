"""Multiple choice, without a judge: which of several answers does the model find likelier?

Questions with right and wrong options (MC1, MC2; all options compete by their summed log-probs),
and pairs of answers shown as A and B in both orders, where orders that disagree count half. The
bundled items are ours; TruthfulQA itself is `evaluate capability`'s truthfulqa_mc1 and
truthfulqa_mc2. In the folder `choices`: scored.jsonl and result.json. A killed evaluation goes on
where it was. With --self-align: the base model and each finished stage's, in DIR/evaluation, in one
table, and the page self_align.html.

examples:
  emergent-alignment evaluate choices --run runs/first
  emergent-alignment evaluate choices --output runs/base --config.model.path=default
  emergent-alignment evaluate choices --run runs/first --config.choices.questions=mine.jsonl
  emergent-alignment evaluate choices --self-align runs/aligned
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergent_alignment.cli.configuration import read_config
from emergent_alignment.cli.report import print_measures, print_table
from emergent_alignment.cli.under_test import (
    add_model_arguments,
    output_folder,
    read_under_test,
)
from emergent_alignment.errors import UserError

if TYPE_CHECKING:
    from emergent_alignment.config import Config

_SECTIONS = ("choices",)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what to evaluate, and where its figures go."""
    add_model_arguments(parser, _SECTIONS)
    parser.add_argument(
        "--self-align", type=Path, metavar="DIR", help="a work directory of `self-align`"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="drop what another model or other items have left"
    )


def run(arguments: Namespace, rest: list[str]) -> None:
    """Evaluate, print the table, say where everything is."""
    config = read_config(rest)
    if arguments.self_align is not None:
        if arguments.workdir or arguments.output or arguments.arm:
            raise UserError("--self-align names its own models and folders; leave out the others")
    else:
        output_folder(arguments)
    from emergent_alignment.evaluation.choices.evaluate import chosen_items, evaluate_choices
    from emergent_alignment.reports.choices_rows import choice_rows

    chosen_items(config.choices)  # its mistakes are said before a model is read
    if arguments.self_align is not None:
        evaluate_work_directory(config, arguments.self_align, overwrite=arguments.overwrite)
        return
    tested = read_under_test(arguments, config, _SECTIONS)
    result, path = evaluate_choices(
        tested.config, tested.setup, tested.output, arm=tested.arm, overwrite=arguments.overwrite
    )
    print_measures(choice_rows(result), f"{result['arm']}: multiple choice; 95% intervals")
    print(f"log-probs: {path.with_name('scored.jsonl')}")
    print(f"written: {path}")


def evaluate_work_directory(
    config: "Config", workdir: Path, *, base: Any = None, overwrite: bool = False
) -> None:
    """Evaluate the models of a SELF-ALIGN work directory, write its page, print the table.
    `base` saves reading the base model again."""
    from emergent_alignment.experiments.self_align_arms import config_of, evaluate_stages
    from emergent_alignment.reports.self_align_page import write_self_align_report
    from emergent_alignment.runs.from_config import load_model

    config = config_of(workdir, config)
    evaluate_stages(config, workdir, base or load_model(config), overwrite=overwrite)
    page, table = write_self_align_report(workdir)
    print_table(table, f"{workdir.name}: before and after (95% intervals)")
    print(f"report: {page}")
