"""A bigram model of a corpus: the yardstick that training from raw text must beat.

P(b|a) = (c(a,b) + k·P(b)) / (c(a) + k) with P(b) = (c(b) + 1) / (n + V): k imagined tokens after
each a, spread as the whole corpus is (MacKay & Peto 1995, A hierarchical Dirichlet language
model, eq. 12). It is a stronger yardstick than k for every token alike.
"""

from dataclasses import dataclass

import numpy as np

from emergent_alignment.applications.pretraining.windows import Windows

STRENGTHS = tuple(float(2**power) for power in range(-4, 15))


@dataclass(frozen=True)
class Bigrams:
    """Counts of a corpus: `pairs` are the codes a·V + b that occur, ascending, and `counts` how
    often; `firsts` int64[V] how often a token is followed by another, `tokens` int64[V] how
    often it is the follower."""

    num_tokens: int
    pairs: np.ndarray
    counts: np.ndarray
    firsts: np.ndarray
    tokens: np.ndarray


def count_bigrams(windows: Windows, num_tokens: int) -> Bigrams:
    """Counts over all places of the windows that predict a next token, by V = `num_tokens`."""
    first, second = (
        part[windows.predicts].astype(np.int64) for part in (windows.tokens, windows.targets)
    )
    pairs, counts = np.unique(first * num_tokens + second, return_counts=True)
    return Bigrams(
        num_tokens,
        pairs,
        counts,
        np.bincount(first, minlength=num_tokens),
        np.bincount(second, minlength=num_tokens),
    )


def bigram_loss(bigrams: Bigrams, windows: Windows, strength: float) -> float:
    """Nats a token over the places of `windows` that predict a next token, with k = `strength`."""
    first, second = (
        part[windows.predicts].astype(np.int64) for part in (windows.tokens, windows.targets)
    )
    codes = first * bigrams.num_tokens + second
    places = np.minimum(np.searchsorted(bigrams.pairs, codes), bigrams.pairs.size - 1)
    seen = np.where(bigrams.pairs[places] == codes, bigrams.counts[places], 0)
    base = (bigrams.tokens[second] + 1) / (bigrams.tokens.sum() + bigrams.num_tokens)
    share = (seen + strength * base) / (bigrams.firsts[first] + strength)
    return float(-np.log(share).mean())


def best_bigram_loss(bigrams: Bigrams, windows: Windows) -> tuple[float, float]:
    """(loss, k) for the k in STRENGTHS that is best on these very windows: no other choice of k
    among them could do better there."""
    return min((bigram_loss(bigrams, windows, k), k) for k in STRENGTHS)
