"""How long it takes to keep only instructions that are unlike all kept ones, by the thousands.

Every text is asked for the most similar kept one (ROUGE-L above 0.7) and kept where there is
none, as stage 1 of `self-align` does, on one core. The texts are made: a quarter are earlier
texts with up to three words changed, a third bundled seeds with half of their words changed, and
the others begin as seeds do; new words come as Zipf's law has them. Before anything is timed, the
index must find for some texts what comparing with every kept one finds. "all pairs" is what the
library `rouge-score` would take for as many comparisons as there are pairs, by the time of a few
thousand; "faster" compares processor times.

example:
  python benchmarks/rouge_index.py
  python benchmarks/rouge_index.py --texts 12500,100000
"""

import argparse
import resource
import time

import numpy as np
import tables
from arguments import positive, positives
from rouge_score.rouge_scorer import RougeScorer

from emergent_alignment.self_align.instructions import similar
from emergent_alignment.self_align.instructions.rouge import rouge_l, rouge_tokens
from emergent_alignment.self_align.instructions.similar import Similar, SimilarTexts
from emergent_alignment.self_align.instructions.sources import BUNDLED_SEEDS, load_seeds

THRESHOLD = 0.7
VOCABULARY = 30_000
SMALL = [500, 1000, 2000]


def main() -> None:
    """Check, measure every size, print the table, keep the rows."""
    args = parse_arguments()
    sizes = SMALL if args.small else args.texts
    texts = make_texts(max(sizes), args.seed)
    check(texts[: min(sizes)], args.checked)
    pair_seconds = library_seconds(texts)
    rows = [measure(texts[:size], pair_seconds, args.seed) for size in sizes]
    header = [
        "texts",
        "kept",
        "time",
        "processor time",
        "a text",
        "compared",
        "all pairs",
        "faster",
    ]
    cells = [
        [
            f"{row['texts']:,}",
            f"{row['kept']:,}",
            f"{row['seconds']:.3g} s",
            f"{row['processor_seconds']:.3g} s",
            f"{1e3 * row['processor_seconds'] / row['texts']:.3g} ms",
            f"{row['compared'] / row['pairs']:.2g} of pairs",
            f"{row['all_pairs_seconds'] / 3600:.3g} h",
            f"{row['all_pairs_seconds'] / row['processor_seconds']:,.0f}×",
        ]
        for row in rows
    ]
    title = f"Texts unlike all kept ones: ROUGE-L at most {THRESHOLD}, one core"
    tables.print_table(title, header, cells)
    if not args.small:
        print(f"Kept in {tables.keep_rows('rouge_index', rows, ('texts', 'seed'))}")


def make_texts(number: int, seed: int) -> list[list[str]]:
    """Instruction-like texts of 4 to 150 words, 15 on average."""
    draws = np.random.default_rng(seed)
    starts = [rouge_tokens(row.instruction) for row in load_seeds(BUNDLED_SEEDS)]
    common = sorted({word for start in starts for word in start})
    draws.shuffle(common)
    vocabulary = [*common, *(f"word{rank}" for rank in range(len(common), VOCABULARY))]
    share = 1 / (np.arange(VOCABULARY) + 2.7)  # Zipf–Mandelbrot
    drawn = iter(draws.choice(VOCABULARY, size=number * 40, p=share / share.sum()).tolist())
    texts: list[list[str]] = []
    for _ in range(number):
        sort = draws.random()
        if sort < 0.25 and texts:
            text = list(texts[draws.integers(len(texts))])
            changed = draws.integers(len(text), size=draws.integers(1, 4))
        elif sort < 0.6:
            text = list(starts[draws.integers(len(starts))])
            changed = np.flatnonzero(draws.random(len(text)) < draws.uniform(0.3, 0.7))
        else:
            length = int(np.clip(draws.lognormal(2.4, 0.6), 2, 145))
            text = starts[draws.integers(len(starts))][: draws.integers(2, 6)] + [""] * length
            changed = range(len(text) - length, len(text))
        for place in changed:
            text[place] = vocabulary[next(drawn)]
        texts.append(text)
    return texts


def check(texts: list[list[str]], checked: int) -> None:
    """Exit where the index finds anything else than comparing with every text."""
    index = SimilarTexts(THRESHOLD)
    for text in texts[:-checked]:
        index.add(text)
    for text in texts[-checked:]:
        scores = np.array([rouge_l(text, other) for other in texts[:-checked]])
        best = int(scores.argmax())
        expected = Similar(best, float(scores[best])) if scores[best] > THRESHOLD else None
        if index.most_similar(text) != expected:
            raise SystemExit(f"the index misses what all pairs find for {' '.join(text)!r}")


def library_seconds(texts: list[list[str]], pairs: int = 2000) -> float:
    """Processor seconds of one comparison by `rouge-score`."""
    scorer, draws = RougeScorer(["rougeL"]), np.random.default_rng(0)
    chosen = [
        [" ".join(texts[place]) for place in draws.integers(len(texts), size=2)]
        for _ in range(pairs)
    ]
    started = time.process_time()
    for first, second in chosen:
        scorer.score(first, second)
    return (time.process_time() - started) / pairs


def measure(texts: list[list[str]], pair_seconds: float, seed: int) -> dict:
    """One pass over the texts."""
    index, compared = SimilarTexts(THRESHOLD), Counted(similar.longest_common)
    similar.longest_common, pairs = compared, 0
    started, processor = time.perf_counter(), time.process_time()
    for text in texts:
        pairs += len(index)
        if index.most_similar(text) is None:
            index.add(text)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    similar.longest_common = compared.function
    return {
        "texts": len(texts),
        "seed": seed,
        "kept": len(index),
        "seconds": seconds,
        "processor_seconds": processor,
        "compared": compared.calls,
        "pairs": pairs,
        "all_pairs_seconds": pairs * pair_seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "machine": tables.machine(),
    }


class Counted:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


def parse_arguments() -> argparse.Namespace:
    """--help teaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    default = [12_500, 25_000, 50_000, 100_000]
    add("--texts", type=positives, default=default, help="sizes (12500,25000,50000,100000)")
    add("--checked", type=positive, default=50, help="texts compared with every other (50)")
    add("--seed", type=int, default=0, help="of the texts (0)")
    add("--small", action="store_true", help="a few thousand texts; keeps nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
