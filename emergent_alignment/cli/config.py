"""Print the settings: every field with its default, what it may be, and what it does.

With SECTION that section alone, or a single field; what is within a section is named with dots.
A field is set on the command line by --config.NAME=VALUE, or in a config file.

examples:
  emergent-alignment config
  emergent-alignment config conscience
  emergent-alignment config self_align.reinforcement.policy
  emergent-alignment config training.steps
  emergent-alignment config --list
"""

import difflib
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emergent_alignment.cli.bundled import bundled_configs, bundled_folder, summary_of
from emergent_alignment.errors import UserError

if TYPE_CHECKING:
    from emergent_alignment.settings import Field

WIDTH = 96
IN_NONE = "in no section"
PAGE_BEGINNING = """\
# Settings

Every setting of `emergent-alignment`, section by section; `emergent-alignment config SECTION` says
the same in a terminal. A field is set by `--config.SECTION.FIELD=VALUE`, as often as you like, or
in a config file ([configs/](../configs)), which starts from `default_config()`. In Python,
`changed(Config(), {"section.field": value})` gives frozen settings, which the applications take
(`emergent_alignment.config`, `emergent_alignment.settings`).

This page is what `emergent-alignment config --markdown` prints.
"""


@dataclass(frozen=True)
class Group:
    """The fields that stand in a section itself, not in one within it. The first group's are in no
    section: its name is ""."""

    name: str
    explanation: str
    fields: "list[Field]"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what is printed."""
    parser.add_argument("section", nargs="?", metavar="SECTION", help="a section, or a field")
    parser.add_argument("--list", action="store_true", help="print the bundled config files")
    parser.add_argument("--markdown", action="store_true", help="print docs/settings.md")


def run(arguments: Namespace, rest: list[str]) -> None:
    """Print a field, a section with what is within it, or everything."""
    if rest:
        raise UserError(f"{rest[0]}: `config` prints what may be set, and sets nothing")
    if arguments.list:
        for name, path in bundled_configs().items():
            print(f"{name}\n{textwrap.indent(textwrap.fill(summary_of(path), WIDTH - 2), '  ')}")
        print(f"in {bundled_folder('configs')}")
    elif arguments.markdown:
        print("\n".join(markdown()))
    else:
        name = (arguments.section or "").removeprefix("config.")
        print("\n\n".join("\n".join(_as_text(group)) for group in named(name)))


def named(name: str) -> list[Group]:
    """The section of this name with those within it, or the field in its section alone; all for
    "". Raises UserError where there is neither, with the nearest name."""
    every = list(groups())
    if not name:
        return every
    within = [group for group in every if f"{group.name}.".startswith(f"{name}.")]
    of_one = [
        Group(group.name, group.explanation, [field])
        for group in every
        for field in group.fields
        if field.name == name
    ]
    if not within and not of_one:
        raise UserError(
            f"config.{name}: there is no such section or field; {_nearest(name, every)}"
        )
    return within or of_one


def groups() -> Iterator[Group]:
    """All sections, those within others after them."""
    from emergent_alignment.config import Config
    from emergent_alignment.settings import fields_of, sections_of

    fields = list(fields_of(Config))
    for name, section in {"": Config, **sections_of(Config)}.items():
        own = [field for field in fields if field.name.rpartition(".")[0] == name]
        explanation = section.__doc__ if name else "What is trained, and from which seed."
        yield Group(name, " ".join(explanation.split()), own)


def markdown() -> Iterator[str]:
    """The lines of docs/settings.md."""
    yield PAGE_BEGINNING
    for group in groups():
        yield f"## {group.name or IN_NONE.capitalize()}\n\n{group.explanation}\n"
        if group.fields:
            yield "| field | default | may be | what it does |\n|---|---|---|---|"
            yield from (_as_row(field) for field in group.fields)
            yield ""


def shown(value: Any) -> str:
    """A default, as a person would write it."""
    if isinstance(value, tuple):
        return ", ".join(map(shown, value)) or "()"
    return str(value) or '""'


def _as_text(group: Group) -> Iterator[str]:
    """The section's own line; of each field a line with default and range, and what it does."""
    yield f"{group.name or IN_NONE}: {group.explanation}"
    for field in group.fields:
        default = textwrap.shorten(shown(field.default), WIDTH // 2, placeholder=" …")
        yield f"  {_own_name(field)} = {default}   ({_allowed(field)})"
        yield textwrap.indent(textwrap.fill(field.explanation, WIDTH - 6), " " * 6)


def _as_row(field: "Field") -> str:
    cells = (
        f"`{_own_name(field)}`",
        f"`{shown(field.default)}`",
        _allowed(field),
        field.explanation,
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _own_name(field: "Field") -> str:
    return field.name.rpartition(".")[2]


def _allowed(field: "Field") -> str:
    """Choices or range, and the type where neither tells it."""
    several = field.kind.startswith("a tuple") and field.allowed
    words = f"some of {field.allowed}" if several else field.allowed
    return words or {"bool": "True, False", "str": "a text"}.get(field.kind, field.kind)


def _nearest(name: str, every: list[Group]) -> str:
    """What to say beside a name that is no section's and no field's."""
    known = [group.name for group in every if group.name]
    known += [field.name for group in every for field in group.fields]
    near = [other for other in known if other.rpartition(".")[2] == name]
    near = near[:4] or difflib.get_close_matches(name, known, n=1)
    return f"did you mean {' or '.join(near)}?" if near else "`emergent-alignment config` has all"
