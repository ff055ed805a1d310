"""Tokens a second: our sampler against transformers' generate with its KV cache, on the CPU.

Both sides continue the same prompts with the same float32 weights. Before anything is timed,
greedy answers are compared: where the tokens are the same, their log-probs must agree within
0.001, and a token may differ only where both were as likely (0.001). Sampled answers (plain, at
temperature 1) are compared by their mean log-prob. Then the sides take turns. Ratios are of
seconds, transformers / ours, pair by pair: above 1, ours takes less.
"""

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path

import tables
from arguments import positive, positives
from peers import peer_python, peer_versions
from plots import plot_lines
from turns import quiet_note, take_turns, turns_content
from workers import InputSettings, Worker, WorkerFailed, say, write_inputs

TOLERANCE = 1e-3
TEMPERATURES = {"greedy": 0.0, "sampled": 1.0}


def main() -> None:
    """Measure every batch size, print the table, keep the rows and the plot."""
    args = parse_arguments()
    try:
        rows = measure(args)
    except WorkerFailed as failure:
        raise SystemExit(str(failure)) from None
    print_rows(rows, args)
    if not args.small:
        path = tables.keep_rows("sampling", rows, ("batch", "decoding", "prompt", "new_tokens"))
        print(f"Kept in {path} and {plot(rows)}")


def measure(args: argparse.Namespace) -> list[dict]:
    """A row for each batch size and way of decoding."""
    python = peer_python("torch")
    versions = peer_versions(python, ("torch", "transformers"))
    versions |= {f"our {name}": v for name, v in peer_versions(sys.executable, ("jax",)).items()}
    with tempfile.TemporaryDirectory(prefix="sampling-") as directory:
        inputs = InputSettings(args.small, max(args.batches), args.prompt, response=1)
        write_inputs(Path(directory), inputs)
        settings = {"inputs": directory, "new_tokens": args.new_tokens}
        with (
            Worker("ours", sys.executable, "worker_sampling_ours.py", settings) as ours,
            Worker("transformers", python, "worker_sampling_transformers.py", settings) as theirs,
        ):
            rows = []
            for batch in args.batches:
                for decoding, temperature in TEMPERATURES.items():
                    say(f"batch {batch}, {decoding}")
                    order = {"batch": batch, "temperature": temperature}
                    row = {"batch": batch, "decoding": decoding, "prompt": args.prompt}
                    row |= {"new_tokens": args.new_tokens, "versions": versions}
                    row |= one_row(ours, theirs, order, args)
                    rows.append(row | {"machine": tables.machine()})
    return rows


def one_row(ours: Worker, theirs: Worker, order: dict, args: argparse.Namespace) -> dict:
    """Compare once, which also compiles and warms up, then take turns."""
    answers = [worker.step(check=True, **order) for worker in (ours, theirs)]
    compare = compare_greedy if order["temperature"] == 0 else compare_sampled
    row = {"compared": compare(*(answer.result for answer in answers))}
    order = order | {"check": False}
    theirs.step(**order)
    row |= turns_content(take_turns(ours, theirs, order, args.repeats, args.patience))
    return row | {"first_call_seconds": [answer.seconds for answer in answers]}


def compare_greedy(ours: dict, theirs: dict) -> str:
    """What was found the same. Raises SystemExit where the sides chose otherwise."""
    same_rows, tokens, worst = 0, 0, 0.0
    for row in zip(*(side[name] for side in (ours, theirs) for name in ("tokens", "log_probs"))):
        own, own_log_probs, other, other_log_probs = row
        pairs = list(zip(own, other))
        until = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        # A first difference is a tie, and is compared too; what follows it has another past.
        compared = min(until + 1, len(pairs))
        gaps = [abs(a - b) for a, b in zip(own_log_probs[:compared], other_log_probs[:compared])]
        same_rows += until == len(pairs)
        tokens += until
        worst = max(worst, *gaps)
    if not worst <= TOLERANCE:
        raise SystemExit(
            f"greedy answers differ: log-probs up to {worst:.2g} apart, more than {TOLERANCE}; "
            "the sides do not compute the same thing"
        )
    return f"{same_rows} of {len(ours['tokens'])} rows, log-probs within {worst:.0e}"


def compare_sampled(ours: dict, theirs: dict) -> str:
    """How far the mean log-probs are apart. Raises SystemExit where chance does not explain it.

    The spread is taken over rows, since tokens of a row depend on each other; 6 standard errors.
    """
    means = [[statistics.fmean(row) for row in side["log_probs"]] for side in (ours, theirs)]
    gap = abs(statistics.fmean(means[0]) - statistics.fmean(means[1]))
    if len(means[0]) < 8:
        return f"mean log-probs {gap:.2f} apart (too few rows to judge)"
    error = math.sqrt(sum(statistics.variance(rows) / len(rows) for rows in means))
    if not gap <= 6 * error:
        raise SystemExit(
            f"sampled answers differ: mean log-probs are {gap:.2f} apart, {gap / error:.0f} "
            "standard errors; the sides do not draw from the same distribution"
        )
    return f"mean log-probs {gap:.2f} apart, {gap / error:.1f} standard errors"


def print_rows(rows: list[dict], args: argparse.Namespace) -> None:
    """The table."""
    header = ["batch", "decoding", "ours, tokens/s", "transformers, tokens/s"]
    header += ["transformers / ours", "processor time", "found the same"]
    cells = []
    for row in rows:
        ours, theirs = row["ours"]["seconds"], row["theirs"]["seconds"]
        speeds = [row["batch"] * row["new_tokens"] / statistics.median(s) for s in (ours, theirs)]
        cells.append([str(row["batch"]), row["decoding"], *(f"{speed:.1f}" for speed in speeds)])
        for name in ("seconds", "processor_seconds"):
            ratio = tables.ratio_of_pairs(row["ours"][name], row["theirs"][name])
            cells[-1].append(str(ratio))
        cells[-1].append(row["compared"])
    title = (
        f"Sampling: prompt {args.prompt}, {args.new_tokens} new tokens; medians of {args.repeats}"
    )
    tables.print_table(title, header, cells)
    print(quiet_note(rows))


def plot(rows: list[dict]) -> Path:
    """Tokens a second over the batch size."""
    lines = {}
    for side, name in (("ours", "ours"), ("theirs", "transformers")):
        for decoding in TEMPERATURES:
            of_line = [row for row in rows if row["decoding"] == decoding]
            batches = [row["batch"] for row in of_line]
            medians = [statistics.median(row[side]["seconds"]) for row in of_line]
            speeds = [row["batch"] * row["new_tokens"] / s for row, s in zip(of_line, medians)]
            lines[f"{name}, {decoding}"] = (batches, speeds)
    return plot_lines("sampling", lines, "rows in the batch", "tokens a second")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--batches", type=positives, default=[1, 8, 16, 32], help="1,8,16,32")
    add("--prompt", type=positive, default=64, help="tokens of each prompt (64)")
    add("--new-tokens", type=positive, default=64, help="tokens to write (64)")
    add("--repeats", type=positive, default=5, help="timed calls of each side (5)")
    add("--patience", type=float, default=0, help="minutes a row to wait for quiet turns (0)")
    add("--small", action="store_true", help="a tiny random model: does it run? keeps nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
