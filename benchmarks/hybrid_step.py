"""One training step with a DPO term: ours against TRL's and Tunix's DPOTrainer, on the CPU.

Both sides start from the same weights and adapters, see the same tokens, and take two steps
that are compared before any step is timed: their losses must agree within 0.001, also after an
update. Then they take turns. Ratios are peer / ours, pair by pair: above 1, ours takes less.

  trl    loss_type=["sigmoid", "sft"], which is our hybrid loss with the chosen answer as the
         target: mean over pairs of the DPO loss + mean over chosen tokens of their NLL
  tunix  has no SFT term. Ours is timed with it all the same, and compared without it

With --offline it is plain offline DPO: loss_type=["sigmoid"] against the step of
`train --config dpo`, no task term on either side, the reference's log-probs computed beforehand.

Everything is float32 with AdamW; LoRA has rank 16 and alpha 32 on all seven projections.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tables
from arguments import listed, positive
from peers import peer_python, peer_versions
from turns import quiet_note, take_turns, turns_content, wait_until_quiet
from workers import InputSettings, Worker, WorkerFailed, say, write_inputs

TOLERANCE = 1e-3
LEARNING_RATES = {"full": 1e-6, "lora": 1e-4}
TUNIX_ROPE_THETA = 1e6  # what its Llama rotates with, whatever the config says
KEY = (
    "peer",
    "mode",
    "pairs",
    "prompt",
    "response",
    "remat",
    "peer_remat",
    "precomputed",
    "offline",
)
VERSIONS = {
    "trl": ("torch", "trl", "transformers", "peft"),
    "tunix": ("google-tunix", "jax", "qwix"),
}


@dataclass(frozen=True)
class Peer:
    """name; its environment and worker; whether it has a task term; what its loss is called."""

    name: str
    environment: str
    script: str
    task: bool
    loss: str


PEERS = {
    "trl": Peer("trl", "torch", "worker_trl.py", True, "loss"),
    "tunix": Peer("tunix", "tunix", "worker_tunix.py", False, "alignment_loss"),
}


def main() -> None:
    """Measure every peer in every mode, print the table, keep the rows."""
    args = parse_arguments()
    rows = []
    try:
        for name in args.sides:
            for mode in args.modes:
                rows.append(measure(PEERS[name], mode, args))
                if not args.small:
                    path = tables.keep_rows("hybrid_step", rows[-1:], KEY)
                    say(f"  kept in {path}")
    except WorkerFailed as failure:
        raise SystemExit(str(failure)) from None
    print_rows(rows, args)


def measure(peer: Peer, mode: str, args: argparse.Namespace) -> dict:
    """One row: write the inputs, compare, take turns."""
    say(f"{peer.name}, {mode}:")
    python = peer_python(peer.environment)
    row = {"peer": peer.name, "mode": mode, "pairs": args.pairs, "prompt": args.prompt}
    row |= {"response": args.response, "precomputed": args.precomputed}
    row |= {"remat": args.remat, "peer_remat": args.peer_remat, "offline": args.offline}
    with tempfile.TemporaryDirectory(prefix="hybrid-step-") as directory:
        rope_theta = TUNIX_ROPE_THETA if peer.name == "tunix" else None
        sizes = (args.pairs, args.prompt, args.response)
        write_inputs(Path(directory), InputSettings(args.small, *sizes, rope_theta))
        settings = {
            "inputs": directory,
            "mode": mode,
            "task": True,
            "learning_rate": learning_rate(mode, args),
            "remat": args.remat,
            "peer_remat": args.peer_remat,
            "precomputed": args.precomputed,
            "offline": args.offline,
        }
        row |= compare_and_time(peer, python, settings, args)
    versions = peer_versions(python, VERSIONS[peer.name])
    versions |= {f"our {name}": v for name, v in peer_versions(sys.executable, ("jax",)).items()}
    return row | {"versions": versions, "machine": tables.machine()}


def learning_rate(mode: str, args: argparse.Namespace) -> float:
    """One at which the first update moves the loss: the DPO term alone moves less."""
    return LEARNING_RATES[mode] * (100 if args.small else 1) * (4 if args.offline else 1)


def compare_and_time(peer: Peer, python: Path, settings: dict, args: argparse.Namespace) -> dict:
    """Both sides in processes of their own; only one of them computes at any time."""
    compared = None
    if not peer.task:
        say("  ours, the DPO term alone, to compare")
        without = settings | {"task": False}
        with Worker("ours", sys.executable, "worker_ours.py", without) as worker:
            compared, _ = first_steps(worker)
    say("  ours, first steps")
    start_quietly([], args.patience)
    with Worker("ours", sys.executable, "worker_ours.py", settings) as ours:
        our_results, our_start = first_steps(ours)
        say(f"  {peer.name}, first steps")
        start_quietly([ours], args.patience)
        with Worker(peer.name, python, peer.script, settings) as theirs:
            their_results, their_start = first_steps(theirs)
            difference = check_same(peer, compared or our_results, their_results)
            turns = take_turns(ours, theirs, {}, args.repeats, args.patience)
    content = turns_content(turns) | {"loss_difference": difference}
    content["ours"] |= our_start
    content["theirs"] |= their_start
    return content


def start_quietly(running: list[Worker], patience_minutes: float) -> None:
    """Wait for quiet before a process starts, since its first step is measured from there."""
    wait_until_quiet(running, time.perf_counter() + 60 * patience_minutes)


def first_steps(worker: Worker) -> tuple[list[dict], dict]:
    """What the first two steps computed, and what the first took, which compiles: seconds from
    the start of the process, and its processor time."""
    first = worker.step()
    took = {
        "first_step_seconds": worker.prepared_seconds + first.seconds,
        "first_step_processor_seconds": worker.processor_seconds(),
    }
    return [first.result, worker.step().result], took


def check_same(peer: Peer, ours: list[dict], theirs: list[dict]) -> float:
    """How far the losses are apart at the first step and after one update. Raises SystemExit
    where that is too far, or where the update was too small to tell."""
    difference = tables.largest_difference(ours, theirs, (peer.loss, peer.loss), steps=2)
    moved = abs(theirs[1][peer.loss] - theirs[0][peer.loss])
    say(f"  losses differ by {difference:.1g}; the update moved them by {moved:.1g}")
    if not difference <= TOLERANCE:
        raise SystemExit(
            f"{peer.name}: losses differ by {difference:.2g} in the first two steps, more than "
            f"{TOLERANCE}; the sides do not compute the same thing, so nothing was timed"
        )
    if not moved >= 10 * TOLERANCE:
        raise SystemExit(
            f"{peer.name}: the update moved the loss by {moved:.2g} only, so that equal losses "
            "after it say little; use longer answers"
        )
    return difference


def print_rows(rows: list[dict], args: argparse.Namespace) -> None:
    """The table."""
    header = ["peer, training", "ours", "peer", "peer / ours", "processor time"]
    header += ["peak memory, ours and peer", "first step, ours and peer", "losses differ by"]
    cells = []
    for row in rows:
        ours, theirs = row["ours"], row["theirs"]
        cells.append(
            [
                f"{row['peer']}, {row['mode']}",
                tables.seconds_text(ours["seconds"]),
                tables.seconds_text(theirs["seconds"]),
                *(
                    str(tables.ratio_of_pairs(ours[name], theirs[name]))
                    for name in ("seconds", "processor_seconds")
                ),
                " ".join(tables.bytes_text(side["peak_bytes"]) for side in (ours, theirs)),
                " ".join(f"{side['first_step_seconds']:.3g} s" for side in (ours, theirs)),
                f"{row['loss_difference']:.1g}",
            ]
        )
    model = "a tiny random Llama" if args.small else "SmolLM2-135M"
    title = (
        f"Seconds a step: {model}, {args.pairs} pairs, prompt {args.prompt}, responses "
        f"{args.response}; medians (least–most) of {args.repeats}"
    )
    tables.print_table(title, header, cells)
    print(quiet_note(rows))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pairs", type=positive, default=4, help="prompts, each with a pair (4)")
    add("--prompt", type=positive, help="tokens of each prompt (256; 32 if small)")
    add("--response", type=positive, help="tokens of each answer (128; 16 if small)")
    add("--repeats", type=positive, default=5, help="timed steps of each side (5)")
    add("--sides", type=listed(PEERS), default=list(PEERS), help="trl,tunix (both)")
    add("--modes", type=listed(LEARNING_RATES), default=list(LEARNING_RATES), help="full,lora")
    add("--patience", type=float, default=0, help="minutes a row to wait for quiet turns (0)")
    add("--remat", choices=("none", "dots", "full"), default="full", help="ours (full)")
    add("--peer-remat", action="store_true", help="the peer, too, computes activations again")
    add("--precomputed", action="store_true", help="the reference's log-probs come with the batch")
    add("--offline", action="store_true", help="plain offline DPO, precomputed (trl)")
    add("--small", action="store_true", help="a tiny random model: does it run? keeps nothing")
    args = parser.parse_args()
    args.prompt = args.prompt or (32 if args.small else 256)
    args.response = args.response or (16 if args.small else 128)
    args.precomputed |= args.offline
    if args.precomputed and "tunix" in args.sides:
        parser.error("Tunix always computes its reference; add --sides trl")
    return args


if __name__ == "__main__":
    main()
