"""From what a model writes to the entries of the list that it was asked for."""

import re
from dataclasses import dataclass

_MARKER = re.compile(
    r"\s*[*_#>]*\s*"  # markdown around it
    r"(?:(?:task|question|instruction|topic|subject)\s+|q(?=\d))?#?"
    r"(?:[(\[]?\d{1,3}\s*(?:[.):\]]+(?=[\s*_]|$)|[、。．：）])|[-*+•–‣◦●▪](?=[\s*_]|$))\s*",
    re.IGNORECASE,
)
# U+2028, U+2029 and U+0085 are none here: they stand within texts.
_LINE_END = re.compile(r"\r?\n|[\r\v\f\x1c-\x1e]")
_LABEL = re.compile(r"(?:task|question|instruction|topic|subject|prompt)\s*:\s*", re.IGNORECASE)
_MARKDOWN = re.compile(r"\*\*|__|`")
_QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»"}


@dataclass(frozen=True)
class Entry:
    """One entry of a list; not finished where the answer was cut within it."""

    text: str
    finished: bool


def read_list(text: str, *, ended: bool) -> list[Entry]:
    """The entries of a list with numbers, dashes or dots, of whatever numbering. Only the first
    line of an entry counts, and those after a line that ends with a colon: what follows
    otherwise is explanation or answer. With `ended` false the text was cut within its last line.
    """
    entries: list[list[str]] = []
    open_entry = False
    lines = _LINE_END.split(text)
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines):
        marker = _MARKER.match(line)
        if marker:
            entries.append([line[marker.end() :]])
        elif open_entry and line.strip():
            entries[-1].append(line)
        else:
            continue
        open_entry = not entries[-1][-1].strip() or entries[-1][-1].rstrip(" *_").endswith(":")
        last_line = number == len(lines) - 1
        if last_line and not ended:
            return [*(_finished(parts) for parts in entries[:-1]), _cut(entries[-1])]
    return [_finished(parts) for parts in entries]


def _finished(parts: list[str]) -> Entry:
    return Entry(_clean(parts), True)


def _cut(parts: list[str]) -> Entry:
    return Entry(_clean(parts), False)


def _clean(parts: list[str]) -> str:
    """One line without markdown, labels, and quotation marks around the whole."""
    text = " ".join(_MARKDOWN.sub("", " ".join(parts)).split())
    text = _LABEL.sub("", text, count=1) if _LABEL.match(text) else text
    inner = text[1:-1]
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in inner:
        return inner.strip()
    return text
