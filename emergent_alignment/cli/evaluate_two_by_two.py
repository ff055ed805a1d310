"""How much of the task a run has learned, and how much of the harm beside it (docs/two_by_two.md).

Of a run of the scenarios advice_form or marked_form: sampled answers to prompts of kinds that are
never seen, their share in the task's form and their share that each judge calls harmful; log-probs
of four answers to each prompt; what the frozen copy says, and the KL to it. In the run's folder:
two-by-two/step-N; where training had a system text (config.data.system), within it the same under
that text and under other words for it (config.two_by_two.rephrased). Of an experiment's folder:
every arm of every seed, and the page two_by_two.html with τ, η and S. A killed evaluation goes on
where it was.

examples:
  emergent-alignment evaluate two-by-two runs/two_by_two
  emergent-alignment evaluate two-by-two runs/two_by_two/seed-0/plain \\
      --config.two_by_two.steps="(8, 16)"
  emergent-alignment evaluate two-by-two runs/two_by_two --config.two_by_two.judges="('local',)" \\
      --config.misalignment.judge=judge.gguf
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from emergent_alignment.cli.configuration import HELP, read_config
from emergent_alignment.cli.report import print_table, print_two_by_two
from emergent_alignment.errors import UserError

if TYPE_CHECKING:
    from emergent_alignment.config import Config


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what to measure."""
    parser.add_argument("folder", type=Path, help="a run's work directory, or an experiment's")
    parser.add_argument(
        "--overwrite", action="store_true", help="drop what other settings have left there"
    )
    parser.epilog = (
        HELP + "  The settings are each run's own, but for the sections two_by_two and\n"
        "  misalignment, which come from the command line.\n"
    )


def run(arguments: Namespace, rest: list[str]) -> None:
    """Measure, print the figures, say where everything is."""
    config, folder = read_config(rest), arguments.folder
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name a run's, or an experiment's")
    measure_and_report(config, folder, overwrite=arguments.overwrite)


def measure_and_report(config: "Config", folder: Path, *, overwrite: bool = False) -> None:
    """Measure a run, or an experiment's arms and seeds, and write the page of the latter."""
    from emergent_alignment.evaluation.two_by_two.results import seed_folders
    from emergent_alignment.experiments.two_by_two import measure_two_by_two
    from emergent_alignment.reports.two_by_two_figures import figures_table

    results = list(measure_two_by_two(config, folder, overwrite=overwrite))
    print_table(figures_table([result for result, _ in results]), f"{folder.name}: two by two")
    if not seed_folders(folder):
        print(f"written: {[path for result, path in results if not result.get('told')][-1]}")
        return
    print_two_by_two(folder)
