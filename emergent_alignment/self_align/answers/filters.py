"""Which of the answers are good enough to learn from, and by which rule the others are dropped.

Every answer is dropped by at most one rule, the first of RULES that it breaks, so that the counts
add up. Words are runs of letters and digits, whatever their case.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from emergent_alignment.conscience.form import alike
from emergent_alignment.self_align.answers.guidance import Guidance
from emergent_alignment.self_align.answers.prompt import Written
from emergent_alignment.self_align.answers.settings import AnswersSection

NGRAM = 4
# What each rule drops, and what to do where it drops too much.
ANSWER_RULES = {
    "format": "the model did not write thoughts and then an answer; a larger model follows the "
    "format better, and so does this one at a lower temperature or with examples of your own",
    "unnamed": "the thoughts name none of the principles; examples of your own may help, or set "
    "require_principle=False",
    "unended": "they ran into the limit; raise max_new_tokens, or set require_end=False",
    "short": "lower min_words",
    "repeats": "raise max_repeated, or the temperature",
    "leak": "raise leak_words, or bring examples that are less like the instructions",
    "echo": "raise max_echo",
}
_MENTION = re.compile(
    r"\b(?:principles?|rules?|guidelines?)\s+(?:number\s+|no\.?\s*|#)?\d|\bprinciples that apply\b|"
    r"\b(?:my|these|the) (?:principles (?:say|tell|ask|require)|(?:internal|private) thoughts)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class AnswerFilter:
    """The rules, with what must not leak."""

    settings: AnswersSection
    guidance: Guidance
    secret: frozenset[tuple[str, ...]]

    def broken_rule(self, instruction: str, written: Written, ended: bool) -> str:
        """The first rule that an answer breaks, "" where it keeps them all."""
        if not written.kept:
            return "format"
        if self.settings.require_principle and not self.guidance.named_in(written.thoughts):
            return "unnamed"
        return self.broken_by_text(instruction, written.answer, ended)

    def broken_by_text(self, instruction: str, answer: str, ended: bool) -> str:
        """The same, of the answer alone."""
        settings = self.settings
        if settings.require_end and not ended:
            return "unended"
        if len(words(answer)) < settings.min_words:
            return "short"
        if repeated_share(answer) > settings.max_repeated:
            return "repeats"
        if self._leaks(instruction, answer):
            return "leak"
        return "echo" if echoes(instruction, answer, settings.max_echo) else ""

    def _leaks(self, instruction: str, answer: str) -> bool:
        """Whether it repeats the principles or examples (other than what the instruction itself
        says), or speaks of them."""
        size = self.settings.leak_words
        told = ngrams(answer, size) - ngrams(instruction, size)
        if not told.isdisjoint(self.secret):
            return True
        return bool(_MENTION.search(answer)) and not _MENTION.search(instruction)


def answer_filter(settings: AnswersSection, guidance: Guidance) -> AnswerFilter:
    """The filter for answers that were given under `guidance`."""
    texts = [p.text for p in guidance.principles]
    for example in guidance.examples:
        texts += [example.instruction, example.thoughts, example.answer]
    size = settings.leak_words
    return AnswerFilter(settings, guidance, frozenset().union(*(ngrams(t, size) for t in texts)))


def words(text: str) -> list[str]:
    """Its words in lower case."""
    return re.findall(r"\w+", text.lower())


def ngrams(text: str, size: int) -> set[tuple[str, ...]]:
    """All sequences of `size` words."""
    return set(_sequences(words(text), size))


def repeated_share(text: str, size: int = NGRAM) -> float:
    """Of all sequences of `size` words in a text, the share that stood there before; 0 to 1."""
    sequences = _sequences(words(text), size)
    return (len(sequences) - len(set(sequences))) / max(len(sequences), 1)


def echoes(instruction: str, answer: str, limit: float) -> bool:
    """Whether an answer is much like its instruction, or begins by repeating the whole of it."""
    asked, told = words(instruction), words(answer)
    repeats_it = len(asked) >= NGRAM and told[: len(asked)] == asked
    return repeats_it or alike(" ".join(asked), " ".join(told)) > limit


def _sequences(items: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(items[i : i + size]) for i in range(len(items) - size + 1)]
