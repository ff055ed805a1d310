"""Principles, and what else people write as a YAML list of texts, from files that they may replace:
every mistake in them is one line with file and line."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import read_text
from emergent_alignment.storage.yaml_values import yaml_items

BUNDLED = "bundled"


@dataclass(frozen=True)
class Principle:
    """One rule: its number from 1, its name, and what it asks for."""

    number: int
    name: str
    text: str


def principles_of(source: str, bundled: Traversable) -> tuple[Principle, ...]:
    """The principles of a .yaml file, or the `bundled` ones. Raises UserError, with file and line,
    for one without a name or text, a name or number that is there twice, and a gap."""
    principles: list[Principle] = []
    for where, item in listed(source, bundled, "number, name and text"):
        principle = Principle(
            item.get("number"), text_field(item, "name", where), text_field(item, "text", where)
        )
        for other in principles:
            if other.name.lower() == principle.name.lower():
                raise UserError(
                    f"{where}: the name {principle.name!r} is that of number {other.number}, too; "
                    "rename one or remove it"
                )
        if principle.number != len(principles) + 1:
            raise UserError(
                f"{where}: the number is {principle.number!r}, and should be "
                f"{len(principles) + 1}; number the principles from 1 on, in their order"
            )
        principles.append(principle)
    return tuple(principles)


def listed(source: str, bundled: Traversable, fields: str) -> Iterator[tuple[str, dict]]:
    """("file:line", item) for every item of a YAML list of mappings, in a file or in the `bundled`
    one. Raises UserError, which names the `fields` that were expected, for anything else."""
    where, text = _read(source, bundled)
    items = yaml_items(text, where)
    if not items:
        raise UserError(f"{where}: expected a list with the fields {fields}; it holds no items")
    for place, item in items:
        if not isinstance(item, dict):
            raise UserError(f"{place}: expected the fields {fields}, not {item!r:.60}")
        yield place, item


def text_field(item: dict[str, Any], name: str, where: str) -> str:
    """A field that must be there and hold a text. Raises UserError that says `where` else."""
    value = item.get(name)
    if not isinstance(value, str) or not value.strip():
        said = "is missing" if name not in item else f"is {value!r:.40}"
        raise UserError(f"{where}: the {name} {said}; write a text")
    return value.strip()


def _read(source: str, bundled: Traversable) -> tuple[str, str]:
    if source == BUNDLED:
        return bundled.name, bundled.read_text("utf-8")
    return source, read_text(Path(source), f"give a .yaml file, or {BUNDLED!r}")
