"""Questions with the answers to choose from, bundled or from a user's .jsonl file.

A line is either {"question", "right": [best, …], "wrong": […]}, whose options compete by their
log-probs, or {"question", "better", "worse"}, whose two answers are shown as A and B. Optional are
"name" and "topic".
"""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from emergent_alignment.data.examples import check_telling
from emergent_alignment.data.row_files import json_lines
from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import is_file
from emergent_alignment.storage.json_values import digest

BUNDLED_CHOICES = "bundled"
_EXPECTED = (
    'expected {"question": …, "right": [best, …], "wrong": […]} or '
    '{"question": …, "better": …, "worse": …}; optional are "name" and "topic"'
)
PLACEHOLDERS = frozenset(
    "todo tbd fixme xxx placeholder option answer none null n/a na nan - ? ... …".split()
)


@dataclass(frozen=True)
class Choice:
    """A question and its options: `right` (the best one first) and `wrong`. `is_pair` says that
    there is one of each, to be shown as A and B. `name` is unique in its file."""

    name: str
    topic: str
    question: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    is_pair: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """All of them, the right ones first."""
        return self.right + self.wrong


def load_choices(source: str) -> list[Choice]:
    """The items of a file, or the bundled ones. Raises UserError for a missing, empty or
    malformed file, with the line."""
    if source == BUNDLED_CHOICES:
        with resources.as_file(resources.files(__package__) / "bundled.jsonl") as path:
            return _choices_of(path)
    if not is_file(source):
        raise UserError(
            f"config.choices.questions: {source} is no file; give a .jsonl file, or "
            f"{BUNDLED_CHOICES!r}"
        )
    return _choices_of(Path(source))


def choices_digest(items: list[Choice]) -> str:
    """16 hex digits that say which items these are, in which order."""
    return digest([vars(item) for item in items], ensure_ascii=False)


def _choices_of(path: Path) -> list[Choice]:
    items: dict[str, Choice] = {}
    places: dict[str, str] = {}
    for where, row in json_lines(path, _EXPECTED):
        number = where.rpartition(":")[2]
        item = _choice(row, number, where)
        if item.name in items:
            raise UserError(
                f"{where}: the name {item.name!r} stands in line {places[item.name]} already; give "
                "each item a name of its own"
            )
        items[item.name], places[item.name] = item, number
    if not items:
        raise UserError(f"{path}: there are no items in it; {_EXPECTED}")
    return list(items.values())


def _choice(row: Any, number: str, where: str) -> Choice:
    is_pair = isinstance(row, dict) and {"question", "better", "worse"} <= row.keys()
    if not is_pair and not (isinstance(row, dict) and {"question", "right", "wrong"} <= row.keys()):
        got = sorted(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise UserError(f"{where}: found {got}; {_EXPECTED}")
    check_telling(row, where)
    if is_pair and {"right", "wrong"} & row.keys():
        raise UserError(f"{where}: right and wrong stand beside better and worse; {_EXPECTED}")
    if is_pair:
        right, wrong = [row["better"]], [row["worse"]]
    else:
        right, wrong = (_texts(row[side], side, where) for side in ("right", "wrong"))
    name = _text(row.get("name", f"line {number}"), "name", where)
    topic = _text(row.get("topic", "any"), "topic", where)
    question = _text(row["question"], "question", where)
    item = Choice(name, topic, question, tuple(right), tuple(wrong), is_pair)
    _check_options(item, where)
    return item


def _texts(value: Any, side: str, where: str) -> list:
    """A list of options; a single text is one."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise UserError(f"{where}: there is no {side} option; {side} must be a list of texts")
    return texts


def _text(value: Any, field: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {field} must be a text with something in it, not {value!r}")
    return value.strip()


def _check_options(item: Choice, where: str) -> None:
    """Raise UserError for options that are no text, are left to fill in, or stand twice."""
    seen: dict[str, str] = {}
    for option in item.options:
        plain = " ".join(_text(option, "each option", where).split()).casefold()
        if plain.strip(".<>[]{}_ ") in PLACEHOLDERS or not plain.strip(".<>[]{}_ …"):
            raise UserError(f"{where}: the option {option!r} is a placeholder; write it out")
        if plain in seen:
            raise UserError(
                f"{where}: the option {option!r} stands twice; each must differ, else its "
                "probability counts twice"
            )
        seen[plain] = option
