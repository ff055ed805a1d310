"""`python -m campaign [KIND ...]`: try, write down, count. Exits with 1 where a fault was found."""

import argparse
import importlib
import sys
from pathlib import Path

from campaign.trial import Trial, kind_of, table, table_rows
from emergent_alignment.progress import progress
from emergent_alignment.storage.files import write_whole
from emergent_alignment.storage.json_lines import read_json_lines, write_json_lines

KINDS = ("kills", "hosts", "disk", "inputs", "files", "requests", "sandbox")
BEGIN, END = "<!-- campaign -->", "<!-- /campaign -->"


def main() -> int:
    """Run the kinds asked for; what others wrote in the same folder counts in the table."""
    args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    for kind in args.kinds or KINDS:
        _try(kind, args)
    trials = [Trial(**r) for kind in KINDS for r in read_json_lines(args.out / f"{kind}.jsonl")]
    rows = table_rows(trials)
    print(table(rows))
    faults = [trial for trial in trials if trial.outcome in ("fault", "silent")]
    for trial in faults:
        print(f"{trial.kind}, {trial.case}: {trial.outcome}: {trial.detail}", file=sys.stderr)
    if args.page:
        _into(args.page, rows)
    return bool(faults)


def _try(kind: str, args: argparse.Namespace) -> None:
    """The trials of a kind, each written down as it is made: one that breaks loses no other."""
    module = importlib.import_module(f"campaign.{kind}")
    count, records = args.trials or module.TRIALS, []
    folder = args.out / kind
    folder.mkdir(exist_ok=True)
    with progress(kind) as meter:
        for trial in module.trials(count, args.seed, folder):
            records.append(trial.record())
            write_json_lines(args.out / f"{kind}.jsonl", records)
            meter(len(records), max(count, len(records)), trial.case)


def _into(page: Path, rows: list[str]) -> None:
    """Put the table between the page's two marks; rows of kinds that were not tried now stay."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    former, after = rest.split(END)
    tried = {kind_of(row) for row in rows}
    kept = [row for row in former.splitlines() if kind_of(row) in {*KINDS} - tried]
    text = table(sorted([*rows, *kept]))
    whole = f"{before}{BEGIN}\n{text}\n{END}{after}".encode()
    write_whole(page, lambda file: file.write(whole))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="campaign", description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="all, unless named")
    parser.add_argument("--trials", type=int, help="of each kind; unless set, its usual number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/campaign"))
    parser.add_argument(
        "--page", type=Path, help="a page to put the table into; other kinds' rows there stay"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
