"""What share of a training batch's positions is padding, in shapes chosen from the data.

Every row once, as fine-tuning on the task reads it, with SmolLM2's tokenizer. "as they come" is
what batches of the same order would pad if each were as wide as its longest row, rounded up to
32. Sources are those of `config.data.train`: bundled scenarios, files, names that `datasets`
knows. No time is taken.

example:
  python benchmarks/padding.py
  python benchmarks/padding.py --sources harmful_advice,mine.jsonl --max-response 1024
"""

import argparse
from pathlib import Path

import numpy as np
import tables
from arguments import positive, positives

from emergent_alignment.data.batches import bucket, rows_of_step
from emergent_alignment.data.buckets import choose_buckets, data_padding_share
from emergent_alignment.data.chat import Chat, read_chat
from emergent_alignment.data.scenarios import SCENARIOS
from emergent_alignment.data.sources import load_examples
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.models.default_model import default_model
from emergent_alignment.models.tokenizer import load_tokenizer


def main() -> None:
    """Read every source, print the table, keep the rows."""
    args = parse_arguments()
    chat = read_chat(load_tokenizer(default_model()))
    rows = [measure(source, chat, args) for source in args.sources]
    header = ["source", "rows", *(f"{count} shapes" for count in args.buckets), "as they come"]
    cells = [
        [
            row["source"],
            str(row["rows"]),
            *(f"{share:.1%}" for share in row["shares"].values()),
            f"{row['as_they_come']:.1%}",
        ]
        for row in rows
    ]
    title = (
        f"Padding: prompts up to {args.max_prompt}, answers up to {args.max_response} tokens, at "
        f"most so many shapes, batches of {args.batch}"
    )
    tables.print_table(title, header, cells)
    key = ("source", "max_prompt", "max_response", "batch")
    print(f"Kept in {tables.keep_rows('padding', rows, key)}")


def measure(source: str, chat: Chat, args: argparse.Namespace) -> dict:
    """The padding shares of one source."""
    examples = load_examples(source)
    tokenized = [tokenize(row, chat, args.max_prompt, args.max_response) for row in examples]
    prompts, targets = (
        np.array([len(getattr(row, name)) for row in tokenized]) for name in ("prompt", "target")
    )
    shares = {}
    for count in args.buckets:
        buckets = choose_buckets(prompts, targets, max_buckets=count, min_rows=args.batch)
        shares[str(count)] = data_padding_share(buckets, prompts, targets)
    return {
        "source": source if source in SCENARIOS else Path(source).name,
        "rows": len(examples),
        "max_prompt": args.max_prompt,
        "max_response": args.max_response,
        "batch": args.batch,
        "shares": shares,
        "as_they_come": share_as_they_come(prompts, targets, args.batch),
    }


def share_as_they_come(prompts: np.ndarray, targets: np.ndarray, batch: int) -> float:
    """The share where each batch of one epoch is as wide as its longest prompt and answer, in
    multiples of 32."""
    positions = 0
    for step in range(len(prompts) // batch):
        rows = rows_of_step(len(prompts), batch, seed=0, step=step)
        widths = (bucket(int(lengths[rows].max()), 32, 1 << 30) for lengths in (prompts, targets))
        positions += batch * sum(widths)
    seen = (prompts + targets).mean() * batch * (len(prompts) // batch)
    return float(1 - seen / positions)


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sources", type=lambda text: text.split(","), default=list(SCENARIOS), help="(bundled)")
    add("--buckets", type=positives, default=[1, 8, 16], help="shapes at most (1,8,16)")
    add("--batch", type=positive, default=8, help="rows of a batch (8)")
    add("--max-prompt", type=positive, default=512, help="tokens of a prompt (512)")
    add("--max-response", type=positive, default=256, help="tokens of an answer (256)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
