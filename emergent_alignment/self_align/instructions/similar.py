"""Which of very many texts are like a new one: an index that compares it with few, and misses none.

Two texts of m and n words whose ROUGE-L is above a threshold t have L > t(m + n)/2 words in common.
Whatever cannot have that many is left out, in this order:

- by its rarest words (prefix filtering; Chaudhuri et al. 2006, Bayardo et al. 2007). Take the words
  of both texts, repetitions included, in one order, rarest first. If they share o words, then the
  first m − o + 1 of the one and the first n − o + 1 of the other share one: were there none, then
  the beginning that ends first in that order would hold no word of the other text, and its own text
  only the o − 1 words after it to share;
- by length: no more than min(m, n) words are common;
- by signature: each word sets one bit of 256; bits in which two texts differ are words that only
  one of them has (Sandes et al. 2020, "Bitmap filter").

What is left is compared exactly.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt64

from emergent_alignment.self_align.instructions.rouge import bits_of, dice, longest_common

SIGNATURE_WORDS = 4  # of 64 bits
_FIRST_SIZE = 256


@dataclass(frozen=True)
class Similar:
    """The text most like a new one: its place in the order in which texts were added, and the
    ROUGE-L of the two."""

    place: int
    score: float


class SimilarTexts:
    """Texts, given as lists of words, that can be asked for the one most like another."""

    def __init__(self, threshold: float):
        self.threshold = threshold
        self._words: dict[str, int] = {}
        self._texts: list[list[int]] = []  # as numbers of words
        self._lengths = np.zeros(_FIRST_SIZE, np.int32)
        self._signatures = np.zeros((_FIRST_SIZE, SIGNATURE_WORDS), np.uint64)
        self._counts: list[int] = []  # how often each word has come
        self._rarity: list[int] = []  # … when the order was last settled
        self._holders: dict[int, array] = {}  # texts among whose rarest a word is
        self._fewest_in_common: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def most_similar(self, words: Sequence[str]) -> Similar | None:
        """The text whose ROUGE-L with `words` is highest, the first of several, where that is
        above the threshold; None where no text's is."""
        text = self._numbered(words)
        bits, best = bits_of(text), None
        for place in self._candidates(text):
            other = self._texts[place]
            score = dice(longest_common(bits, other), len(text) + len(other))
            if score > self.threshold and (best is None or score > best.score):
                best = Similar(place, score)
        return best

    def add(self, words: Sequence[str]) -> None:
        """One more text."""
        text, place = self._numbered(words), len(self._texts)
        if place == len(self._lengths):
            self._lengths = np.resize(self._lengths, 2 * place)
            self._signatures = np.resize(self._signatures, (2 * place, SIGNATURE_WORDS))
        self._texts.append(text)
        self._lengths[place] = len(text)
        self._signatures[place] = _signature(text)
        for word in text:
            self._counts[word] += 1
        if place + 1 >= _FIRST_SIZE and (place + 1).bit_count() == 1:
            self._settle_order()
        else:
            self._hold(place)

    def _numbered(self, words: Sequence[str]) -> list[int]:
        text = [self._words.setdefault(word, len(self._words)) for word in words]
        new = len(self._words) - len(self._counts)
        self._counts.extend([0] * new)
        self._rarity.extend([0] * new)
        return text

    def _candidates(self, text: list[int]) -> list[int]:
        """Places, in order, of all texts that can be similar, and of some that are not."""
        held = [self._holders[word] for word in self._rarest(text) if word in self._holders]
        if not held:
            return []
        places = np.concatenate([np.frombuffer(one, np.int32) for one in held])
        totals = self._lengths[places] + len(text)
        common = np.minimum(self._lengths[places], len(text))
        fits = 2 * common / totals > self.threshold
        places, totals = places[fits], totals[fits]
        differing = _differing(self._signatures[places], _signature(text))
        # 2·common = m + n − (words that only one of them has)
        return np.unique(places[(totals - differing) / totals > self.threshold]).tolist()

    def _rarest(self, text: list[int]) -> set[int]:
        """The words of which a similar text must hold one among its rarest."""
        rarity, length = self._rarity, len(text)
        if length not in self._fewest_in_common:
            self._fewest_in_common[length] = self._fewest(length)
        ordered = sorted(text, key=lambda word: (rarity[word], word))
        return set(ordered[: length - self._fewest_in_common[length] + 1])

    def _fewest(self, length: int) -> int:
        """The least number of words that a text of `length` shares with any similar one; more
        than `length` where there can be none."""
        other = next((n for n in range(1, length + 1) if self._above(n, length + n)), length)
        able = (o for o in range(1, length + 1) if self._above(o, length + other))
        return next(able, length + 1)

    def _above(self, common: int, total: int) -> bool:
        return dice(common, total) > self.threshold

    def _hold(self, place: int) -> None:
        for word in self._rarest(self._texts[place]):
            self._holders.setdefault(word, array("i")).append(place)

    def _settle_order(self) -> None:
        """Order words by how often they have come. Any one order misses nothing; this one, made
        anew whenever the texts have doubled, keeps the lists of holders short."""
        self._rarity = list(self._counts)
        self._holders = {}
        for place in range(len(self._texts)):
            self._hold(place)


def _signature(text: list[int]) -> UInt64[np.ndarray, "words"]:
    """One bit of 64 · SIGNATURE_WORDS for each word."""
    bits = 0
    for word in text:
        bits |= 1 << (word * 0x9E3779B1 >> 7) % (64 * SIGNATURE_WORDS)
    return np.frombuffer(bits.to_bytes(8 * SIGNATURE_WORDS, "little"), np.uint64)


def _differing(
    signatures: UInt64[np.ndarray, "texts words"], signature: UInt64[np.ndarray, "words"]
) -> Int[np.ndarray, "texts"]:
    return np.bitwise_count(signatures ^ signature).sum(axis=1, dtype=np.int64)
