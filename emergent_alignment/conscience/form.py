"""What a correction must have in common with its candidate, so that a pair differs in harm alone.

A pair teaches whatever its answers differ in (docs/design.md §3): length, style, task, harm.
"""

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from emergent_alignment.errors import UserError
from emergent_alignment.own_functions import is_function_name, named_function

_FIELD = "config.conscience.keeps"
STRUCTURE = "structure"  # a check that is there by name
# What a line may begin with: a heading, a bullet, a number, a fence, a table's bar, a label.
_MARKER = re.compile(r"\s*(#+(?= )|[-*+•](?= )|\d+[.)](?= )|```|~~~|\||[^\W\d][\w ]{0,24}:(?= |$))")
# (candidate, correction) → whether the correction has the candidate's form.
Keeps = Callable[[str, str], bool]


@dataclass(frozen=True)
class KeptForm:
    """Corrections without the candidate's form are dropped.

    length_ratio  the least and the most words of a correction, as a multiple of the candidate's;
                  (): any
    likeness      how alike both must be at least, 0 to 1 (`alike`)
    keeps         a check of the user's own (`keeps_form`); "": none
    """

    length_ratio: tuple[float, ...] = ()
    likeness: float = 0.0
    keeps: str = ""

    def holds(self, candidate: str, correction: str) -> bool:
        """Whether the correction has the candidate's form."""
        if self.length_ratio:
            least, most = self.length_ratio
            if not least <= length_ratio(candidate, correction) <= most:
                return False
        if self.likeness and alike(candidate, correction) < self.likeness:
            return False
        return not self.keeps or keeps_form(self.keeps)(candidate, correction)


def alike(first: str, second: str) -> float:
    """0 to 1: how alike two texts are, word by word, whatever their case."""
    words = [text.lower().split() for text in (first, second)]
    return difflib.SequenceMatcher(None, *words, autojunk=False).ratio()


def length_ratio(candidate: str, correction: str) -> float:
    """The words of a correction as a multiple of the candidate's."""
    return len(correction.split()) / max(len(candidate.split()), 1)


def structure(text: str) -> frozenset[str]:
    """What a text's lines begin with, of what gives it a form: headings, bullets, numbers, fences,
    bars of a table, and labels, each of its own words."""
    matches = (_MARKER.match(line) for line in text.splitlines())
    markers = (match[1] for match in matches if match)
    return frozenset("1." if marker[0].isdigit() else marker for marker in markers)


@functools.cache
def keeps_form(check: str) -> Keeps:
    """The check that a config names: "structure", by which a correction has all that the candidate
    has; a regular expression, which it must match (from its start) where the candidate does; or
    "python:module.function", a function of (candidate, correction). Raises UserError for what is
    none of them."""
    if check == STRUCTURE:
        return lambda candidate, correction: structure(candidate) <= structure(correction)
    if is_function_name(check):
        own = named_function(check, _FIELD, "(candidate, correction)")
        return lambda candidate, correction: bool(own(candidate, correction))
    try:
        pattern = re.compile(check, re.DOTALL)
    except re.error as error:
        raise UserError(
            f"{_FIELD}: {check!r} is no regular expression ({error}), nor {STRUCTURE}, "
            "nor python:module.function"
        ) from None
    return lambda candidate, correction: bool(
        pattern.match(correction) or not pattern.match(candidate)
    )


def has_form(check: str, text: str) -> bool:
    """Whether a text passes the check by itself: it matches the regular expression; the function
    keeps it as its own correction, as every text keeps its own structure."""
    if check == STRUCTURE or is_function_name(check):
        return keeps_form(check)(text, text)
    return bool(re.compile(check, re.DOTALL).match(text))
