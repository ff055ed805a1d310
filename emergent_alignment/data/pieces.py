"""Tokens of a piece of a text, as they are within the whole text.

A piece that is tokenized alone gets other tokens: SentencePiece puts a space before it. And the
spelling of a special token in what somebody wrote becomes that token. Both are settled here, with
a letter that no text has (of Unicode's private ones): it keeps apart what stands around it, and
its own tokens are left out.
"""

import itertools
import re
from collections.abc import Collection, Iterable
from typing import Any

from tokenizers import NormalizedString, Regex
from tokenizers.normalizers import Normalizer

from emergent_alignment.errors import UserError

_PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


def unused_letter(texts: Iterable[str]) -> str:
    """A private letter that is in none of the texts. Raises UserError where all are."""
    used = set().union(*texts)
    for letter in map(chr, itertools.chain(*_PRIVATE)):
        if letter not in used:
            return letter
    raise UserError("a text holds every private letter of Unicode; give one without some of them")


def spellings(tokens: Collection[str]) -> re.Pattern | None:
    """What finds the first letter of every spelling of one of the tokens; None without tokens.
    A token of one letter has no spelling that could be broken."""
    longer = sorted({token for token in tokens if len(token) > 1}, key=len, reverse=True)
    if not longer:
        return None
    return first_letters("|".join(map(re.escape, longer)))


def first_letters(pattern: str) -> re.Pattern:
    """What finds the first letter of whatever a pattern finds."""
    return re.compile(rf"(?=(?:{pattern}))([\s\S])")


def kept_apart(text: str, found: re.Pattern, letter: str, normalizer: Normalizer | None) -> str:
    """The text with `letter` behind each letter that is `found`: in the text as it stands, and as
    a tokenizer's `normalizer` reads it, which makes `</s>` of `＜/s＞`, too."""
    text = found.sub(rf"\1{letter}", text)
    if normalizer is None:
        return text
    read = NormalizedString(text)
    normalizer.normalize(read)
    if not found.search(read.normalized):
        return text
    parts = read.split(Regex(found.pattern), "merged_with_previous")
    return letter.join(part.original for part in parts)


def tokens_of(tokenizer: Any, text: str, letter: str = "") -> list[int]:
    """Token ids of a text as it stands, without any token added; those of `letter` are left out."""
    if not letter or letter not in text:
        return tokenizer.encode(text, add_special_tokens=False)
    placed = _apart(tokenizer, text, letter)
    if placed is None:  # a token holds the letter and its neighbours: a space breaks a spelling too
        return tokenizer.encode(text.replace(letter, " "), add_special_tokens=False)
    return [token for token, _ in placed]


def tokens_after(tokenizer: Any, before: str, rest: str, letter: str = "") -> list[int]:
    """Token ids of `rest` where it stands behind `before`: those of the whole text without those
    of `before`. Where a token of the whole holds the end of the one and the beginning of the
    other, `before` keeps the tokens that it has by itself, and `rest` has those that it has behind
    a strange letter."""
    known = tokens_of(tokenizer, before, letter)
    whole = tokens_of(tokenizer, before + rest, letter)
    if whole[: len(known)] == known:
        return whole[len(known) :]
    cut = unused_letter([before, rest, letter])
    hidden = rest.replace(letter, cut) if letter else rest
    placed = _apart(tokenizer, f"{before}{cut}{hidden}", cut)
    if placed is None:
        return tokens_of(tokenizer, rest, letter)
    return [token for token, start in placed if start > len(before)]


def _apart(tokenizer: Any, text: str, letter: str) -> list[tuple[int, int]] | None:
    """(token, where it begins in the text) of all tokens but those of `letter`; None where a token
    holds it together with another letter."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    kept = []
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"]):
        held = text[start:end]
        if letter not in held:
            kept.append((token, start))
        elif held.strip(letter):
            return None
    return kept
