"""What opens and closes turns as plain text, and how a quoted text is kept from spelling it.

The special tokens of a tokenizer are not all: many chat templates write `[/INST]`,
`<|assistant|>` or `ASSISTANT:` in ordinary letters.
"""

import functools
import re
from collections.abc import Iterable

from tokenizers.normalizers import Normalizer

from emergent_alignment.data.pieces import first_letters, kept_apart

# How families spell the opening and the end of turns: whatever reads a quoted text may be one of
# them. Tags in any case, words as the templates have them.
_TAGS = (
    r"<\||<｜|</?s>|<</?sys>>|</?(?:bos|eos)>|</?(?:start|end)_of_turn>|<(?:turn|channel)\|>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|\[\||</?im_\w+>"
    r"|<(?:reserved|unused|extra_id)_?\d+>|◁"
)
_WORDS = (
    r"(?:USER|ASSISTANT|HUMAN|SYSTEM):|(?m:^)(?:User|Assistant|Human|System):"
    r"|#{2,3} (?:Instruction|Input|Response|Human|User|Assistant|System):"
)
_KNOWN = re.compile(f"(?i:{_TAGS})|{_WORDS}")
_TAG = re.compile(r"<<[^<>\s]+>>|<[^<>\s]+>|\[[^\[\]\s]+\]")


def without_turn_marks(
    text: str, own: re.Pattern | None = None, normalizer: Normalizer | None = None
) -> str:
    """The text with every spelling of a turn mark broken up by a space: those that families are
    known to use, and a template's `own`; and what the tokenizer's `normalizer` makes of it."""
    for marks in (_KNOWN, own):
        if marks is not None:
            text = marks.sub(_broken, text)
    return kept_apart(text, _beginnings(own), " ", normalizer)


@functools.lru_cache
def _beginnings(own: re.Pattern | None) -> re.Pattern:
    return first_letters("|".join(marks.pattern for marks in (_KNOWN, own) if marks is not None))


def turn_marks(between: Iterable[str], control: Iterable[str]) -> re.Pattern | None:
    """What finds the marks of a template, from what it writes `between` turns and from the
    spellings of the special tokens (`control`); None where there are none.

    Of plain text, what has the form of a tag, and a line's other words where they hold more than
    letters: "user" alone marks nothing.
    """
    control = {mark for mark in control if len(mark) > 1}
    plain = {mark for text in between for mark in _marks(text, control)}
    if not control | plain:
        return None
    exact = "|".join(re.escape(mark) for mark in sorted(control, key=len, reverse=True))
    loose = "|".join(re.escape(mark) for mark in sorted(plain, key=len, reverse=True))
    return re.compile("|".join([*[exact] * bool(exact), *[f"(?i:{loose})"] * bool(loose)]))


def _marks(text: str, control: set[str]) -> Iterable[str]:
    for mark in {*control, "<think>", "</think>"}:
        text = text.replace(mark, "\n")
    for line in text.splitlines():
        yield from _TAG.findall(line)
        rest = _TAG.sub(" ", line).strip()
        if re.search(r"\w", rest) and re.search(r"[^\w\s]", rest) and len(rest) < 40:
            yield rest


def _broken(mark: re.Match) -> str:
    """A space behind the first letter, or before what follows the word that a mark begins with."""
    cut = re.match(r"\w*", mark[0]).end() % len(mark[0]) or 1
    return f"{mark[0][:cut]} {mark[0][cut:]}"
