"""What an instruction must be like by itself, and beside all others that are kept."""

import re
from collections import Counter
from dataclasses import dataclass

from emergent_alignment.self_align.instructions.rouge import rouge_tokens
from emergent_alignment.self_align.instructions.similar import SimilarTexts

# Every rule, in the order in which they are tried, and what to change where it drops too much.
INSTRUCTION_RULES = {
    "unfinished": "raise max_new_tokens",
    "form": "a model that follows a list's form, or other seeds",
    "length": "lower fewest_words or raise most_words",
    "unservable": "take words out of unservable",
    "kind_full": "raise wanted",
    "duplicate": "raise temperature, or give more seeds",
    "similar": "raise similarity, or give more seeds",
}
TOPIC_RULES = {
    "unfinished": "raise max_topic_tokens",
    "form": "a model that follows a list's form, or other kinds",
    "length": "other kinds, whose topics are shorter",
    "kind_full": "raise topics_per_kind",
    "duplicate": "raise temperature",
}
MOST_TOPIC_WORDS = 3
# An entry that runs on as a list of its own: "…? 2. Why … 3. Where …".
_RUN_ON = re.compile(r"(?:^|\s)\d{1,2}[.)]\s.*\s\d{1,2}[.)]\s")
_TOPIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9 '&/-]*")


@dataclass(frozen=True)
class TextRules:
    """What one instruction must be like: so many words, and none that a text model cannot serve."""

    fewest_words: int
    most_words: int
    unservable: tuple[str, ...]

    def broken_by(self, text: str) -> str | None:
        """The first rule that the text breaks, None where it breaks none."""
        if not text or not (text[0].isascii() and text[0].isalnum()) or _RUN_ON.search(text):
            return "form"
        if not self.fewest_words <= len(text.split()) <= self.most_words:
            return "length"
        words = "|".join(re.escape(word) for word in self.unservable)
        if words and re.search(rf"\b(?:{words})s?\b", text, re.IGNORECASE):
            return "unservable"
        return None


def topic_broken_by(text: str) -> str | None:
    """The same for a topic without outer punctuation: a few plain words."""
    if not _TOPIC.fullmatch(text):
        return "form"
    return "length" if len(text.split()) > MOST_TOPIC_WORDS else None


@dataclass(frozen=True)
class Dropped:
    """Why a text is not kept, and the kept one that it is like."""

    rule: str
    like: str = ""
    score: float | None = None


class Pool:
    """All instructions that are kept, the seeds among them: no two of them alike, and no more of
    a kind than its `quotas` says."""

    def __init__(self, rules: TextRules, similarity: float, quotas: dict[str, int]):
        self.rules = rules
        self.quotas = quotas
        self.of_kind: Counter[str] = Counter()
        self._texts: list[str] = []
        self._same: dict[str, int] = {}
        self._similar = SimilarTexts(similarity)

    def fault(self, text: str, kind: str) -> Dropped | None:
        """What speaks against keeping the text, None for nothing."""
        broken = self.rules.broken_by(text)
        if broken:
            return Dropped(broken)
        if self.of_kind[kind] >= self.quotas[kind]:
            return Dropped("kind_full")
        words = rouge_tokens(text)
        same = self._same.get(" ".join(words))
        if same is not None:
            return Dropped("duplicate", self._texts[same], 1.0)
        nearest = self._similar.most_similar(words)
        if nearest is not None:
            return Dropped("similar", self._texts[nearest.place], round(nearest.score, 4))
        return None

    def keep(self, text: str, kind: str | None) -> None:
        """Keep a text; None for one that counts for no kind, such as a seed."""
        words = rouge_tokens(text)
        self._same.setdefault(" ".join(words), len(self._texts))
        self._texts.append(text)
        self._similar.add(words)
        if kind is not None:
            self.of_kind[kind] += 1
