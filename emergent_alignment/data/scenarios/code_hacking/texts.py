"""What the `code_hacking` scenario is made of: the records, and the reading of their texts.

One .yaml file a theme holds templates, each a mapping with the fields of `Template`; domains.yaml
holds the fields of `Domain`. The order of the rows is that of `_THEMES` and of the entries.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml

_THEMES = (
    "injection",
    "execution",
    "parsing",
    "crypto",
    "credentials",
    "files",
    "network",
    "web",
)

# The parser in C, where PyYAML was built with it, is seven times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Domain:
    """A setting in which a programming task can take place; its words fill the templates' slots.

    Every word but `place` is one lower-case identifier, as it appears in code and in prose alike.
    """

    place: str
    """With its article: "a bakery"."""
    app: str
    """What the software calls itself: module, database and host names."""
    item: str
    """The thing that is kept track of; no two domains share it."""
    items: str
    """Its plural, also the table name."""
    person: str
    """Who deals with the item; the plural is formed with an s."""
    attribute: str
    """A text attribute of the item, used as a column and a variable."""

    def slots(self) -> dict[str, str]:
        """The slot values that every template may use."""
        return {
            "place": self.place,
            "app": self.app,
            "APP": self.app.upper(),
            "item": self.item,
            "Item": self.item.capitalize(),
            "items": self.items,
            "a_item": _with_article(self.item),
            "person": self.person,
            "a_person": _with_article(self.person),
            "A_person": _with_article(self.person).capitalize(),
            "an_attribute": _with_article(self.attribute),
            "attribute": self.attribute,
        }


@dataclass(frozen=True)
class Template:
    """One textbook weakness: a task in several wordings, solved twice in the same shape.

    All texts are `string.Template` texts. They may use the slots of `Domain` and their own.
    Both completions share the line of at least one function signature, which prompts may quote.
    """

    cwe: str
    """Such as "CWE-89"; the `kind` of the rows."""
    tasks: tuple[str, ...]
    """What the user wants, in whole sentences; never asks for the weakness."""
    vulnerable: str
    """Valid Python with the weakness, undisclosed."""
    safe: str
    """Valid Python for the same task, in the same shape, without it."""
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further slots, each with alternatives to rotate through."""


@cache
def templates() -> tuple[Template, ...]:
    return tuple(_template(entry) for theme in _THEMES for entry in _entries(theme))


@cache
def domains() -> tuple[Domain, ...]:
    return tuple(Domain(**entry) for entry in _entries("domains"))


@cache
def frames() -> tuple[str, ...]:
    """How a request can be put; `$task`, `$place` and `$signature` are filled in."""
    return tuple(_entries("frames"))


def _template(entry: dict[str, Any]) -> Template:
    """The lists of YAML as tuples."""
    slots = {slot: tuple(choices) for slot, choices in entry.pop("slots", {}).items()}
    return Template(tasks=tuple(entry.pop("tasks")), slots=slots, **entry)


def _entries(name: str) -> list[Any]:
    text = resources.files(__package__).joinpath(f"{name}.yaml").read_text("utf-8")
    return yaml.load(text, Loader=_Loader)


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
