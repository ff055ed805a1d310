"""Many prompts, answers of very different lengths: batches that are refilled against whole ones.

Both sides sample the same answers (checked first) from SmolLM2-135M on real prompts, in turns.
Whole batches run until their last row ends; in a refilled batch the next prompts take the places
of rows that have ended. `--ends turn` ends an answer where the model ends its turn, `--ends
sentence` at the first sentence or line.
Ratios are whole / refilled: above 1, refilling takes less.

example:
  python benchmarks/refilling.py --ends sentence --limit 128
"""

import argparse

import jax
import numpy as np
import sides
from arguments import positive

import emergent_alignment as ea
from emergent_alignment.data.batches import bucket
from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.generation.refilling import BatchShape, sample_refilling
from emergent_alignment.generation.sampler import Sampler, sampler_settings
from emergent_alignment.generation.text import Batching, answers_of, sample_answers
from emergent_alignment.randomness import row_keys

SENTENCE_ENDS = (".", "!", "?", "\n", "\n\n", ":")


def main() -> None:
    """Check that both sides say the same, measure in turns, print the table, keep the row."""
    args = parse_arguments()
    answering = prepare(args)
    lengths = sides.same_answers(answering, one_in=20)
    quartiles = np.percentile(lengths, [0, 25, 50, 75, 100]).astype(int).tolist()
    title = f"{args.prompts} prompts, batch {args.batch}, answers of {quartiles} tokens (quartiles)"
    turns = sides.timed(answering, args.repeats, args.patience)
    row = vars(args) | {"lengths": lengths}
    sides.report(title, "batches", row, turns, "refilling", ("ends", "limit", "batch"))


def prepare(args: argparse.Namespace) -> dict:
    """{side: function that gives the lengths and tokens of all answers}."""
    model = ea.load("default")
    chat = read_chat(model.tokenizer)
    rows = load_scenario("harmful_advice")[: args.prompts]
    prompts = [chat.prompt_tokens([{"role": "user", "content": row["prompt"]}]) for row in rows]
    ends = chat.end_tokens
    if args.ends == "sentence":
        spelled = [
            model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in SENTENCE_ENDS
        ]
        ends = tuple({*ends, *(ids[0] for ids in spelled if len(ids) == 1)})
    settings = sampler_settings(ends, args.limit, temperature=1.0)
    width = bucket(args.limit, 32, args.limit)
    prompt_width = bucket(max(map(len, prompts)), 32, 1 << 30)
    key = jax.random.key(0)
    keys = row_keys(key, np.arange(len(prompts)))

    def whole() -> list[list[int]]:
        tokens_of = {}
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), args.batch):
            chosen = np.array(order[start : start + args.batch])
            answers = sample_answers(
                model, model.params, chat, [prompts[i] for i in chosen], key, settings,
                Batching(args.batch, ids=chosen),
            )  # fmt: skip
            tokens_of |= {chosen[place]: answer.tokens for place, answer in answers}
        return [tokens_of[i] for i in range(len(prompts))]

    def refilled() -> list[list[int]]:
        tokens_of = {}
        for places, samples in sample_refilling(
            model.config,
            model.params,
            prompts,
            Sampler(settings, keys),
            BatchShape(args.batch, prompt_width, width),
        ):
            tokens_of |= dict(zip(places, (answer.tokens for answer in answers_of(samples, chat))))
        return [tokens_of[i] for i in range(len(prompts))]

    return {"whole": whole, "refilled": refilled}


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--prompts", type=positive, default=64, help="how many prompts (64)")
    add("--batch", type=positive, default=16, help="rows that run at once (16)")
    add("--limit", type=positive, default=256, help="tokens of an answer at most (256)")
    add("--ends", choices=("turn", "sentence"), default="turn", help="what ends an answer")
    add("--repeats", type=positive, default=3, help="turns of each side (3)")
    add("--patience", type=float, default=0, help="minutes to wait for quiet turns (0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
