"""Write one self-contained HTML page about a folder of results.

The folder holds calibration.json and one folder an arm (evaluation.json, metrics.jsonl,
journal/). One that holds folders of seeds, as `experiment` and the quickstart leave it, gets a page
a seed and one over all, and where two-by-twos were measured theirs. A work directory of
`self-align` has a page of its own kind: how far its stages have come, what each kept and dropped,
and the models before and after.
--journal writes journal.html instead: every review of a run, or of all runs in the folder, to
search, to filter by outcome and score, candidate and correction side by side.

examples:
  emergent-alignment report runs/quickstart
  emergent-alignment report runs --output page.html
  emergent-alignment report runs/mine --journal
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.errors import UserError

_WIDTH_OF_FILES = 200  # of tables that go to a file or another program, which have no width


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the folder of results, and the page."""
    parser.add_argument("root", type=Path, help="the folder of results")
    parser.add_argument("--journal", action="store_true", help="write the page of all reviews")
    parser.add_argument("--output", type=Path, help="the page (default: in ROOT)")


def run(arguments: Namespace, rest: list[str]) -> None:
    """Write the page and print its main table."""
    if rest:
        raise UserError(f"unrecognized arguments: {' '.join(rest)}")
    from emergent_alignment.evaluation.two_by_two.results import seed_folders
    from emergent_alignment.reports.journal_page import write_journal_page
    from emergent_alignment.reports.results_page import write_report
    from emergent_alignment.reports.self_align_page import write_self_align_report
    from emergent_alignment.reports.self_align_stages import is_self_align

    if arguments.journal:
        print(f"journal: {write_journal_page(arguments.root, output=arguments.output)}")
        return
    if is_self_align(arguments.root):
        page, table = write_self_align_report(arguments.root, output=arguments.output)
        if table:
            print_table(table, f"{arguments.root.name}: before and after (95% intervals)")
        print(f"report: {page}")
        return
    if seed_folders(arguments.root):
        _of_experiment(arguments.root, arguments.output)
        return
    page = write_report(arguments.root, output=arguments.output)
    print_summary(arguments.root)
    print(f"report: {page}")


def _of_experiment(root: Path, output: Path | None) -> None:
    from emergent_alignment.evaluation.two_by_two.results import TWO_BY_TWO, seed_folders
    from emergent_alignment.reports.results_folder import read_results
    from emergent_alignment.reports.results_page import write_report

    if output is not None:
        raise UserError(f"--output: {root} is an experiment, whose pages lie in it; leave it out")
    arms: dict[str, None] = {}
    for folder in seed_folders(root):
        write_report(folder)
        arms |= dict.fromkeys(arm.name for arm in read_results(folder).arms)
    print_experiment(root, list(arms))
    if any(root.glob(f"seed-*/*/{TWO_BY_TWO}")):
        print_two_by_two(root)


def print_experiment(root: Path, arms: list[str]) -> None:
    """Write the page over an experiment's seeds, and print its table."""
    from emergent_alignment.reports.experiment_page import write_experiment_report

    page, table = write_experiment_report(root, arms)
    print_table(table, f"{root.name}: means over seeds, 95% intervals")
    print(f"report: {page.resolve()}")


def print_two_by_two(root: Path) -> None:
    """Write the page of an experiment's two-by-two; print its shares, and what they come to."""
    from emergent_alignment.reports.two_by_two_page import write_two_by_two_report

    page, table, verdict = write_two_by_two_report(root)
    print_table(table, f"{root.name}: shares of what plain acquires (95% intervals)")
    print(verdict)
    print(f"report: {page.resolve()}")


def print_summary(root: Path) -> None:
    """The main table: the arms side by side, with their intervals."""
    from emergent_alignment.reports.results_page import summary_table

    print_table(summary_table(root), f"{root.name} (95% intervals)")


def print_measures(groups: list[list[tuple[str, str, str]]], title: str) -> None:
    """Groups of (measure, value, of how many)."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for name in ("measure", "value", "of"):
        table.add_column(name)
    for rows in groups:
        for row in rows:
            table.add_row(*row)
        table.add_section()
    Console().print(table)


def print_table(lines: list[list[str]], title: str) -> None:
    """A header and rows of text."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    header, *rows = lines
    table = Table(title=title)
    for name in header:
        table.add_column(escape(name), overflow="fold")  # a figure is never cut short
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES).print(table)
