"""One training step with a DPO term: this checkout's against a former one's, on the CPU.

Both sides start from the same weights, adapters and tokens, and their losses in the first two steps
are compared; then they take turns. Ratios are former / this, turn by turn: above 1, this one takes
less.

example:
  git worktree add ../before HEAD~5
  python benchmarks/versions.py ../before
"""

import argparse
import sys
import tempfile
from pathlib import Path

import tables
from arguments import positive
from turns import quiet_note, take_turns
from workers import InputSettings, Worker, WorkerFailed, say, write_inputs

HERE = Path(__file__).resolve().parents[1]
LEARNING_RATES = {"full": 1e-6, "lora": 1e-4}


def main() -> None:
    args = parse_arguments()
    rows = []
    try:
        for mode in LEARNING_RATES:
            rows.append([mode, *measure(args, mode)])
    except WorkerFailed as failure:
        raise SystemExit(str(failure)) from None
    header = ["training", "this", "former", "former / this", "processor time", "losses differ by"]
    tables.print_table(f"Hybrid step, {args.pairs} pairs", header, rows)


def measure(args: argparse.Namespace, mode: str) -> list[str]:
    """A row of the table, without its first cell."""
    with tempfile.TemporaryDirectory(prefix="versions-") as directory:
        sizes = (args.pairs, args.prompt, args.response)
        write_inputs(Path(directory), InputSettings(args.small, *sizes, None))
        settings = {
            "inputs": directory,
            "mode": mode,
            "task": True,
            "learning_rate": LEARNING_RATES[mode],
            "remat": "none",
            "precomputed": True,
        }
        sides = {"this": HERE, "former": args.former.resolve()}
        this, former = (
            Worker(name, sys.executable, "worker_ours.py", settings, checkout)
            for name, checkout in sides.items()
        )
        with this, former:
            first = [[worker.step().result for _ in range(2)] for worker in (this, former)]
            turns = take_turns(this, former, {}, args.repeats, args.patience)
    say(quiet_note([{"others_share": [turn.others_share for turn in turns]}]))
    seconds = [[getattr(turn, side).seconds for turn in turns] for side in ("ours", "theirs")]
    processor = [
        [getattr(turn, side).processor_seconds for turn in turns] for side in ("ours", "theirs")
    ]
    return [
        *map(tables.seconds_text, seconds),
        str(tables.ratio_of_pairs(*seconds)),
        str(tables.ratio_of_pairs(*processor)),
        f"{tables.largest_difference(*first, ('loss', 'loss'), steps=2):.1g}",
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("former", type=Path, help="a checkout of this repository")
    parser.add_argument("--pairs", type=positive, default=4)
    parser.add_argument("--prompt", type=positive, default=128, help="tokens")
    parser.add_argument("--response", type=positive, default=64, help="tokens")
    parser.add_argument("--repeats", type=positive, default=9, help="turns")
    parser.add_argument("--patience", type=float, default=0.0, help="minutes to wait for quiet")
    parser.add_argument("--small", action="store_true", help="a tiny random model")
    return parser.parse_args()


if __name__ == "__main__":
    main()
