"""What the model answers under: principles and worked examples, from files that a user may
replace. Every mistake in them is one line with file and line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.self_align.answers.settings import AnswersSection
from emergent_alignment.storage.files import read_text
from emergent_alignment.storage.yaml_values import yaml_items

BUNDLED_GUIDANCE = "bundled"


@dataclass(frozen=True)
class Principle:
    """One rule: its number from 1, its name, and what it asks for."""

    number: int
    name: str
    text: str


@dataclass(frozen=True)
class WorkedExample:
    """An instruction, thoughts that name the principles that apply, and the answer."""

    instruction: str
    thoughts: str
    answer: str


@dataclass(frozen=True)
class Guidance:
    """All principles in order, and the worked examples."""

    principles: tuple[Principle, ...]
    examples: tuple[WorkedExample, ...]

    def named_in(self, thoughts: str) -> list[str]:
        """The names of the principles that thoughts name."""
        return [p.name for p in self.principles if _reference(p).search(thoughts)]


def read_guidance(settings: AnswersSection) -> Guidance:
    """The principles and examples that config.self_align.answers names, checked."""
    principles = read_principles(settings.principles)
    return Guidance(principles, read_examples(settings.examples, principles))


def read_principles(source: str) -> tuple[Principle, ...]:
    """The principles of a .yaml file, or the bundled ones. Raises UserError, with file and line,
    for one without a name or text, a name or number that is there twice, and a gap."""
    principles: list[Principle] = []
    for where, item in _items(source, "principles.yaml", "number, name and text"):
        principle = Principle(
            item.get("number"), _text(item, "name", where), _text(item, "text", where)
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


def read_examples(source: str, principles: tuple[Principle, ...]) -> tuple[WorkedExample, ...]:
    """The worked examples of a .yaml file, or the bundled ones. Raises UserError, with file and
    line, for an empty field, and for thoughts that name no principle."""
    examples = []
    for where, item in _items(source, "examples.yaml", "instruction, thoughts and answer"):
        texts = [_text(item, name, where) for name in ("instruction", "thoughts", "answer")]
        example = WorkedExample(*texts)
        if not Guidance(principles, ()).named_in(example.thoughts):
            raise UserError(
                f"{where}: the thoughts name none of the {len(principles)} principles; name those "
                f"that apply by their names, such as {principles[-1].name!r}, or bring examples "
                "for your principles in config.self_align.answers.examples"
            )
        examples.append(example)
    return tuple(examples)


def _reference(principle: Principle) -> re.Pattern:
    return re.compile(rf"(?<![\w-]){re.escape(principle.name)}(?![\w-])", re.IGNORECASE)


def _items(source: str, bundled: str, fields: str) -> Iterator[tuple[str, dict]]:
    """("file:line", item) for every item of a YAML list of mappings."""
    where, text = _read(source, bundled)
    items = yaml_items(text, where)
    if not items:
        raise UserError(f"{where}: expected a list with the fields {fields}; it holds no items")
    for place, item in items:
        if not isinstance(item, dict):
            raise UserError(f"{place}: expected the fields {fields}, not {item!r:.60}")
        yield place, item


def _text(item: dict[str, Any], name: str, where: str) -> str:
    """A field that must be there and hold a text."""
    value = item.get(name)
    if not isinstance(value, str) or not value.strip():
        said = "is missing" if name not in item else f"is {value!r:.40}"
        raise UserError(f"{where}: the {name} {said}; write a text")
    return value.strip()


def _read(source: str, bundled: str) -> tuple[str, str]:
    if source == BUNDLED_GUIDANCE:
        return bundled, resources.files(__package__).joinpath(bundled).read_text("utf-8")
    return source, read_text(Path(source), f"give a .yaml file, or {BUNDLED_GUIDANCE!r}")
