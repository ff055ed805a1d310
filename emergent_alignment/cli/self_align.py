"""SELF-ALIGN (arXiv 2305.03047): from a base model to an aligned one in four stages.

  1  instructions    the model writes instructions: self-instruct, and red-teaming by topic
  2  answers         it answers them under sixteen principles, thinking which apply
  3  engraving       it learns its answers without the principles
  4  reinforcement   preferences, reward and policy optimisation, or verbose cloning

Each stage lives in a folder of --workdir: data.jsonl, and manifest.json once it is done. Run again,
a done stage is not done again and a killed one goes on. At the end the base model and each stage's
are compared by multiple choice (in --workdir/evaluation), and self_align.html shows it all.
docs/self_align.md explains the settings.

examples:
  emergent-alignment self-align --config self_align_quickstart --workdir runs/aligned
  emergent-alignment self-align --config self_align_quickstart --workdir runs/aligned \\
      --stages 1,2

Several hosts each start the same command, with a --workdir that all of them reach and --cluster or
--coordinator, as those of `train` do. They leave the comparison out:
`evaluate choices --self-align` makes it later, on one host.
"""

from argparse import ArgumentParser, Namespace

from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.outputs import require_writable, work_directory
from emergent_alignment.cli.several_hosts import add_host_arguments, joined
from emergent_alignment.parallel.hosts import is_first, together


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the work directory and the stages."""
    parser.add_argument(
        "--workdir", type=work_directory, required=True, help="where the stages' folders are"
    )
    parser.add_argument(
        "--stages", default="1-4", help="which to run, as 1,2 or 2-4 (default: all)"
    )
    parser.add_argument(
        "--no-evaluate",
        action="store_true",
        help="leave multiple choice before and after out (config.choices), which comes last",
    )
    add_host_arguments(parser)
    parser.epilog = HELP


def run(arguments: Namespace, rest: list[str]) -> None:
    """Run the stages that are asked for, evaluate their models, write the page."""
    with joined(arguments):
        _run(arguments, rest)


def _run(arguments: Namespace, rest: list[str]) -> None:
    import jax

    from emergent_alignment.cli.evaluate_choices import evaluate_work_directory
    from emergent_alignment.evaluation.choices.evaluate import chosen_items
    from emergent_alignment.reports.plots import require_matplotlib
    from emergent_alignment.reports.self_align_page import write_self_align_report
    from emergent_alignment.self_align.pipeline import parse_stages, self_align

    with together():
        stages = parse_stages(arguments.stages)
        config = read_config(rest)
        require_writable(arguments.workdir)
        require_matplotlib()
        evaluates = not arguments.no_evaluate and bool({3, 4} & set(stages))
        if evaluates:
            chosen_items(config.choices)  # its mistakes are said before any work
    base = self_align(config, arguments.workdir, stages)
    if evaluates and jax.process_count() == 1:
        evaluate_work_directory(config, arguments.workdir, base=base)
    elif is_first():
        print(f"report: {write_self_align_report(arguments.workdir)[0]}")
    print(f"done: stages {', '.join(map(str, stages))}, in {arguments.workdir}")
