"""What stage 1 starts from: seed instructions and kinds of hard question, bundled or the user's."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from emergent_alignment.data.examples import check_telling
from emergent_alignment.data.row_files import json_lines
from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import is_file

BUNDLED_SEEDS = "bundled"
SECTION = "config.self_align.instructions"
SEED_FIELDS = 'expected {"instruction": …} and, if you like, "kind"'
KIND_FIELDS = 'expected {"kind": …, "description": …, "topic": …, "example": …}'


@dataclass(frozen=True)
class Seed:
    """An instruction that somebody wrote by hand, and what it asks for (code, advice, …)."""

    instruction: str
    kind: str = ""


@dataclass(frozen=True)
class HardKind:
    """A kind of question that a text model answers wrongly or cannot answer.

    name          its short name, unique in the file
    description   what such questions have in common, a phrase in the plural
    topic         something that they can be about, in three words at most
    example       one of them, about that topic
    """

    name: str
    description: str
    topic: str
    example: str


def load_seeds(source: str) -> list[Seed]:
    """The seeds of a .jsonl file, or the bundled ones. Raises UserError with file and line."""
    return _unique(source, "seeds", SEED_FIELDS, _seed, lambda seed: seed.instruction)


def load_kinds(source: str) -> list[HardKind]:
    """The kinds of a .jsonl file, or the bundled twenty. Raises UserError with file and line."""
    return _unique(source, "kinds", KIND_FIELDS, _kind, lambda kind: kind.name)


_Row = TypeVar("Row", Seed, HardKind)


def _unique(
    source: str, part: str, expected: str, read: Callable[[dict, str], _Row], name: Callable
) -> list[_Row]:
    if source == BUNDLED_SEEDS:
        with resources.as_file(resources.files(__package__) / f"{part}.jsonl") as path:
            return _unique(str(path), part, expected, read, name)
    if not is_file(source):
        raise UserError(
            f"{SECTION}.{part}: {source!r}: no such file; give a .jsonl file or {BUNDLED_SEEDS!r}"
        )
    rows: dict[str, _Row] = {}
    places: dict[str, str] = {}
    for where, row in json_lines(Path(source), expected):
        if not isinstance(row, dict):
            raise UserError(f"{where}: found {type(row).__name__}; {expected}")
        check_telling(row, where, read=("instruction",))
        one = read(row, where)
        key = " ".join(name(one).casefold().split())
        if key in rows:
            raise UserError(f"{where}: {name(one)[:60]!r} stands in {places[key]}, too; drop one")
        rows[key], places[key] = one, where
    if not rows:
        raise UserError(f"{source}: there is nothing in it; {expected}, one a line")
    return list(rows.values())


def _seed(row: dict, where: str) -> Seed:
    kind = row.get("kind", "")
    if not isinstance(kind, str):
        raise UserError(f"{where}: kind must be a text, not {kind!r}")
    return Seed(_text(row, "instruction", where, SEED_FIELDS), kind)


def _kind(row: dict, where: str) -> HardKind:
    fields = ("kind", "description", "topic", "example")
    return HardKind(*(_text(row, field, where, KIND_FIELDS) for field in fields))


def _text(row: dict, field: str, where: str, expected: str) -> str:
    value: Any = row.get(field)
    if not isinstance(value, str) or not value.strip():
        said = f"{field} is {value!r}" if field in row else f"{field} is missing"
        raise UserError(f"{where}: {said}; {expected}")
    return " ".join(value.split())
