"""Answers after a long prompt that is the same for all but its end: read once, or with every row.

The prompt is stage 2's of SELF-ALIGN: sixteen principles and five worked examples, then one of the
bundled instructions. SmolLM2-135M answers all of them, in turns, with the beginning read once for
the whole call and with every prompt read whole. Both sides must say the same (checked first).
Ratios are whole / shared: above 1, sharing takes less.

example:
  python benchmarks/prefix_sharing.py --prompts 16 --batch 8 --limit 64
"""

import argparse

import jax
import sides
from arguments import positive

import emergent_alignment as ea
from emergent_alignment.data.batches import split_beginning
from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Batching, read_beginning, sample_answers
from emergent_alignment.self_align.answers.guidance import read_guidance
from emergent_alignment.self_align.answers.prompt import prompt_rows
from emergent_alignment.self_align.answers.settings import AnswersSection


def main() -> None:
    """Check that both sides say the same, measure in turns, print the table, keep the row."""
    args = parse_arguments()
    answering, sizes = prepare(args)
    lengths = sides.same_answers(answering, one_in=8)
    title = (
        f"{args.prompts} prompts of {sizes['prompt_tokens']} tokens, {sizes['shared_tokens']} of "
        f"them alike, batch {args.batch}, {sum(lengths)} tokens written"
    )
    turns = sides.timed(answering, args.repeats, args.patience)
    row = vars(args) | sizes | {"lengths": lengths}
    sides.report(title, "beginning", row, turns, "prefix_sharing", ("prompts", "limit", "batch"))


def prepare(args: argparse.Namespace) -> tuple[dict, dict[str, int]]:
    """{side: function that gives the tokens of all answers}, and how long the prompts are."""
    model = ea.load("default")
    chat = read_chat(model.tokenizer)
    rows = load_scenario("harmful_advice")[: args.prompts]
    guidance = read_guidance(AnswersSection())
    prompts = list(prompt_rows(chat, guidance, [row["prompt"] for row in rows]))
    beginning, rests = split_beginning(prompts)
    settings = sampler_settings(chat.end_tokens, args.limit, temperature=0.7, top_p=0.95)

    def answers(rows: list[list[int]], before=None) -> list[list[int]]:
        sampled = sample_answers(
            model, model.params, chat, rows, jax.random.key(0), settings,
            Batching(args.batch), before=before,
        )  # fmt: skip
        by_place = dict(sampled)
        return [by_place[place].tokens for place in range(len(rows))]

    def shared() -> list[list[int]]:
        before = read_beginning(model, model.params, beginning)
        return answers(rests, before)

    sizes = {"prompt_tokens": max(map(len, prompts)), "shared_tokens": len(beginning)}
    return {"whole": lambda: answers(prompts), "shared": shared}, sizes


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
