"""Answers after a long prompt that is the same for all but its end: read once, or with every row.

The prompt is stage 2's of SELF-ALIGN: sixteen principles and five worked examples, then one of the
bundled instructions. SmolLM2-135M answers all of them, in turns, with the beginning read once for
the whole call and with every prompt read whole. Both sides must say the same (checked first).
Ratios are whole / shared: above 1, sharing takes less.

example:
  python benchmarks/prefix_sharing.py --prompts 16 --batch 8 --limit 64
"""

import argparse
import time

import jax
import numpy as np
import tables
from arguments import positive
from turns import ThisProcess, quiet_note, quiet_turns

import emergent_alignment as ea
from emergent_alignment.config import default_config
from emergent_alignment.data.batches import split_beginning
from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import read_beginning, sample_answers
from emergent_alignment.self_align.answers.guidance import read_guidance
from emergent_alignment.self_align.answers.prompt import prompt_rows


def main() -> None:
    """Check that both sides say the same, measure in turns, print the table, keep the row."""
    args = parse_arguments()
    sides, sizes = prepare(args)
    lengths = compare(*(side() for side in sides.values()))

    def turn() -> dict[str, np.ndarray]:
        took = {}
        for name, side in sides.items():
            started = clock()
            side()
            took[name] = clock() - started
        return took

    turns = quiet_turns(turn, [ThisProcess()], args.repeats, args.patience)
    report(args, lengths, sizes, turns)


def prepare(args: argparse.Namespace) -> tuple[dict, dict[str, int]]:
    """{side: function that gives the tokens of all answers}, and how long the prompts are."""
    model = ea.load("default")
    chat = read_chat(model.tokenizer)
    rows = load_scenario("harmful_advice")[: args.prompts]
    guidance = read_guidance(default_config())
    prompts = list(prompt_rows(chat, guidance, [row["prompt"] for row in rows]))
    beginning, rests = split_beginning(prompts)
    settings = sampler_settings(chat.end_tokens, args.limit, temperature=0.7, top_p=0.95)

    def answers(rows: list[list[int]], before=None) -> list[list[int]]:
        sampled = sample_answers(
            model, model.params, chat, rows, jax.random.key(0), settings,
            before=before, batch_size=args.batch,
        )  # fmt: skip
        found = dict(sampled)
        return [found[place].tokens for place in range(len(rows))]

    def shared() -> list[list[int]]:
        before = read_beginning(model, model.params, beginning)
        return answers(rests, before)

    sizes = {"prompt_tokens": max(map(len, prompts)), "shared_tokens": len(beginning)}
    return {"whole": lambda: answers(prompts), "shared": shared}, sizes


def compare(whole: list[list[int]], shared: list[list[int]]) -> list[int]:
    """The lengths of the answers. Raises SystemExit where more differ than ties explain."""
    different = sum(one != other for one, other in zip(whole, shared))
    if different > len(whole) // 8:
        raise SystemExit(f"{different} of {len(whole)} answers differ; nothing was timed")
    return [len(answer) for answer in whole]


def clock() -> np.ndarray:
    """Now: [seconds, seconds of all threads of this process]."""
    return np.array([time.perf_counter(), time.process_time()])


def report(
    args: argparse.Namespace, lengths: list[int], sizes: dict[str, int], turns: list
) -> None:
    """The table and the kept row."""
    wall, processor = (
        {name: [float(took[name][place]) for took, _ in turns] for name in turns[0][0]}
        for place in range(2)
    )
    title = (
        f"{args.prompts} prompts of {sizes['prompt_tokens']} tokens, {sizes['shared_tokens']} of "
        f"them alike, batch {args.batch}, {sum(lengths)} tokens written"
    )
    rows = [
        [name, tables.seconds_text(wall[name]), tables.seconds_text(processor[name])]
        for name in wall
    ]
    tables.print_table(title, ["beginning", "seconds", "processor time"], rows)
    row = vars(args) | sizes | {"lengths": lengths, "seconds": wall, "processor_seconds": processor}
    ratios = [tables.ratio_of_pairs(x["shared"], x["whole"]) for x in (wall, processor)]
    print(f"whole / shared: {ratios[0]}, by processor time {ratios[1]}")
    row |= {"ratios": [vars(ratio) for ratio in ratios], "machine": tables.machine()}
    row["others_share"] = [share for _, share in turns]
    print(quiet_note([row]))
    print(f"Kept in {tables.keep_rows('prefix_sharing', [row], ('prompts', 'limit', 'batch'))}")


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--prompts", type=positive, default=8, help="how many prompts (8)")
    add("--batch", type=positive, default=8, help="rows that run at once (8)")
    add("--limit", type=positive, default=64, help="tokens of an answer at most (64)")
    add("--repeats", type=positive, default=3, help="turns of each side (3)")
    add("--patience", type=float, default=0, help="minutes to wait for quiet turns (0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
