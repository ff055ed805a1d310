"""Settings as frozen dataclasses: how a section declares its fields, and what is done with all.

A section stands beside the code that reads it; each of its fields has a type, a default, what it
may be, and one sentence of explanation. Which sections there are is said in config.py.
"""

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from emergent_alignment.errors import UserError

_DECLARED = "declared"  # the key of a dataclass field's metadata
# What numbers of a kind may be, whatever else their field says: devices compute with 32 bits.
_LARGEST = {int: 2**31 - 1, float: 3.4e38}


_FINITE = "a finite number"
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # in no path, and (lone surrogates) in no file


@dataclass(frozen=True)
class Section:
    """A frozen dataclass whose fields are made by `setting`, or are sections themselves.

    An int that stands for a float is made one, and a list for a tuple; a value of another type is a
    UserError: a truth is no number. Whether a value can be meant is for `check_settings`.
    """

    def __post_init__(self) -> None:
        values = vars(self)
        for name, hint, _ in _members(type(self)):
            fitted = _fitted(values[name], hint, name)
            if fitted is not values[name]:
                object.__setattr__(self, name, fitted)

    def check(self) -> None:
        """Raise UserError where fields that may be what they are do not go together."""


S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Allowed:
    """What a field may be, beside its type: some `choices` (of a tuple: its items, at least one),
    or numbers in a range. `words` say the range where the plain ones do not."""

    choices: tuple[Any, ...] = ()
    at_least: float | None = None
    more_than: float | None = None
    at_most: float | None = None
    less_than: float | None = None
    words: str = ""

    def holds(self, number: float) -> bool:
        """Whether a number is in the range; NaN is in none."""
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.more_than is None or number > self.more_than)
            and (self.at_most is None or number <= self.at_most)
            and (self.less_than is None or number < self.less_than)
        )

    def range_words(self) -> str:
        """The range, as it follows "must be"; "" where there is none."""
        if self.words:
            return self.words.format(**vars(self))
        if self.at_least is not None and (self.at_most is not None or self.less_than is not None):
            if self.at_most is not None:
                return f"in [{self.at_least:g}, {self.at_most:g}]"
            return f"in [{self.at_least:g}, {self.less_than:g})"
        parts = {
            "{:g} or more": self.at_least,
            "more than {:g}": self.more_than,
            "at most {:g}": self.at_most,
            "under {:g}": self.less_than,
        }
        return " and ".join(text.format(n) for text, n in parts.items() if n is not None)


@dataclass(frozen=True)
class _Declared:
    explanation: str
    allowed: Allowed


def setting(default: Any, explanation: str, **allowed: Any) -> Any:
    """A field of a section; `allowed` is told as the fields of `Allowed`. The choices of a field
    that is annotated as a Literal, or as a tuple of them, are the Literal's."""
    declared = _Declared(explanation, Allowed(**allowed))
    return dataclasses.field(default=default, metadata={_DECLARED: declared})


def share(default: float, explanation: str) -> Any:
    """A field that is a share of something."""
    words = "a share, {at_least:g} to {at_most:g}"
    return setting(default, explanation, at_least=0, at_most=1, words=words)


def finite(default: float, explanation: str) -> Any:
    """A field that may be any number."""
    return setting(default, explanation, more_than=-math.inf, less_than=math.inf, words=_FINITE)


@dataclass(frozen=True)
class Field:
    """One field as a person reads of it: its dotted name (after "config."), its type, default,
    what it may be, in words, and its explanation."""

    name: str
    kind: str
    default: Any
    allowed: str
    explanation: str


def fields_of(kind: type[Section], prefix: str = "") -> Iterator[Field]:
    """Every field of a section and of those within it, in the order of their declaration."""
    for name, hint, declared in _members(kind):
        if declared is None:
            yield from fields_of(hint, f"{prefix}{name}.")
            continue
        default = kind.__dataclass_fields__[name].default
        words = _choice_words(declared.allowed, hint) or declared.allowed.range_words()
        yield Field(prefix + name, _type_words(hint), default, words, declared.explanation)


def sections_of(kind: type[Section], prefix: str = "") -> dict[str, type[Section]]:
    """The sections within one, and those within them, by their dotted names."""
    sections = {}
    for name, hint, declared in _members(kind):
        if declared is None:
            sections |= {prefix + name: hint} | sections_of(hint, f"{prefix}{name}.")
    return sections


def words_by_field(kind: type[Section], prefix: str = "") -> dict[str, tuple[str, ...]]:
    """The words that fields of numbers may hold instead, by dotted name."""
    words = {}
    for name, hint, declared in _members(kind):
        if declared is None:
            words |= words_by_field(hint, f"{prefix}{name}.")
        elif words_beside(hint):
            words[prefix + name] = words_beside(hint)
    return words


def as_dict(section: Section) -> dict[str, Any]:
    """Names and values, sections within it as dicts."""
    return {
        name: as_dict(value) if isinstance(value, Section) else value
        for name, value in vars(section).items()
    }


def values_of(section: Section, prefix: str = "") -> dict[str, Any]:
    """Every field's value by its dotted name."""
    values = {}
    for name, value in vars(section).items():
        nested = isinstance(value, Section)
        values |= values_of(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return values


def value_of(section: Section, name: str) -> Any:
    """The field, or section, of a dotted name."""
    return functools.reduce(getattr, name.split("."), section)


def from_dict(kind: type[S], tree: Mapping[str, Any], source: str = "", remedy: str = "") -> S:
    """A section from nested dicts; what they lack has its default. An int stands for a float, and
    a list for a tuple.

    Raises UserError, which begins with `source` and ends with `remedy`, for an unknown field (with
    the nearest name) or a value of another type.
    """
    try:
        return _read(kind, tree, "config")
    except UserError as error:
        begun, text = f"{source}: " if source else "", str(error)
        if remedy:
            text += f" {remedy}" if text.endswith("?") else f". {remedy}"
        raise UserError(begun + text) from None


def changed(section: S, changes: Mapping[str, Any]) -> S:
    """The section with other values, by dotted names: changed(config, {"training.steps": 3}).

    Raises UserError for an unknown field (with the nearest name) or a value of another type.
    """
    for name, value in changes.items():
        section = _changed(section, name, value, "")
    return section


def check_settings(section: Section, name: str = "config") -> None:
    """Raise UserError for the first field whose value cannot be meant, or else for the first
    section whose fields do not go together."""
    _check_fields(section, name)
    _check_sections(section)


def unknown_field(name: str, known: list[str]) -> str:
    """What to say of a field that there is none of, among those of its section."""
    near = difflib.get_close_matches(name.rpartition(".")[2], known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return f"{name}: there is no such field; {hint}"


def _changed(section: S, name: str, value: Any, within: str) -> S:
    values = dict(vars(section))
    hints = {field: hint for field, hint, _ in _members(type(section))}
    field, _, rest = name.partition(".")
    place = f"{within}{field}"
    if field not in hints:
        raise UserError(unknown_field(place, list(hints)))
    if rest and not _is_section(hints[field]):
        raise UserError(f"{place}.{rest}: there is no such field; {place} is a field itself")
    if rest:
        values[field] = _changed(values[field], rest, value, f"{place}.")
    else:
        values[field] = _fitted(value, hints[field], place)
    return type(section)(**values)


def _check_fields(section: Section, prefix: str) -> None:
    values = vars(section)
    for field, hint, declared in _members(type(section)):
        name, value = f"{prefix}.{field}", values[field]
        if declared is None:
            _check_fields(value, name)
            continue
        known = _choices(declared.allowed, hint)
        if known and isinstance(value, tuple):
            wrong = [item for item in value if item not in known]
            if wrong or not value:
                names = _choice_words(declared.allowed, hint)
                raise UserError(f"{name}: choose among {names}, not {wrong or 'none'}")
        elif known and value not in known:
            names = _choice_words(declared.allowed, hint)
            raise UserError(f"{name}: {value!r} is unknown; known: {names}")
        for one in value if isinstance(value, tuple) else (value,):
            _check_value(one, declared.allowed, name)


def _check_value(value: Any, allowed: Allowed, name: str) -> None:
    """Raise UserError for a number out of its range, or of those that are computed with, and for a
    text that no file, path or page can hold."""
    if isinstance(value, str):
        if _UNWRITABLE.search(value):
            raise UserError(f"{name} must be a text without zero bytes and halves of letters")
    elif isinstance(value, int | float):
        largest = _LARGEST[type(value)] if type(value) in _LARGEST else 1
        if not allowed.holds(value):
            raise UserError(f"{name} must be {allowed.range_words()}, not {_shown(value)}")
        if not -largest <= value <= largest:
            finite_words = f"in [{-largest:g}, {largest:g}]" if isinstance(value, int) else _FINITE
            raise UserError(f"{name} must be {finite_words}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """A value on a line of its own, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists in themselves
        text = f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= 200 else f"{text[:200]} …"


def _check_sections(section: Section) -> None:
    for value in vars(section).values():
        if isinstance(value, Section):
            _check_sections(value)
    section.check()


@functools.cache
def _members(kind: type[Section]) -> tuple[tuple[str, Any, _Declared | None], ...]:
    """(name, type, what was declared of it: None for a section) of every field."""
    hints = get_type_hints(kind)
    return tuple(
        (field.name, hints[field.name], field.metadata.get(_DECLARED))
        for field in dataclasses.fields(kind)
    )


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Section)


def _read(kind: type[S], tree: Mapping[str, Any], name: str) -> S:
    hints = {field: hint for field, hint, _ in _members(kind)}
    values = {}
    for field, value in tree.items():
        place = f"{name}.{field}"
        if field not in hints:
            raise UserError(unknown_field(place, list(hints)))
        hint = hints[field]
        if _is_section(hint) and isinstance(value, Mapping):
            values[field] = _read(hint, value, place)
        else:
            values[field] = _fitted(value, hint, place)
    return kind(**values)


def _fitted(value: Any, hint: Any, name: str) -> Any:
    """The value in the type of its field. Raises UserError where it is of another."""
    if isinstance(value, str) and value in words_beside(hint):
        return value
    plain, item = _plain_type(hint)
    if plain is tuple and isinstance(value, list):
        value = tuple(value)
    fitted = _plainly(value, plain)
    if item and fitted is not None and None in [_plainly(one, item) for one in fitted]:
        fitted = None
    if fitted is None:
        raise UserError(f"{name}: expected {_type_words(hint)}, found {_shown(value)}")
    return fitted


def _plainly(value: Any, plain: type) -> Any:
    """The value in a type, None where it is of another."""
    truth = isinstance(value, bool) and plain in (int, float)
    if plain is float and isinstance(value, int) and not truth:
        try:
            return float(value)
        except OverflowError:
            return math.inf  # refused by its range
    return value if isinstance(value, plain) and not truth else None


def words_beside(hint: Any) -> tuple[str, ...]:
    """Of a field that is a number or a word, as `float | Literal["auto"]`: the words."""
    return get_args(get_args(hint)[1]) if get_origin(hint) in (Union, UnionType) else ()


def _plain_type(hint: Any) -> tuple[type, type | None]:
    """(the class of a field's values, and of a tuple's items)."""
    if get_origin(hint) is Literal:
        return type(get_args(hint)[0]), None
    if get_origin(hint) in (Union, UnionType):
        return _plain_type(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return tuple, _plain_type(get_args(hint)[0])[0]
    return hint, None


def _type_words(hint: Any) -> str:
    if _is_section(hint):
        return "a section"
    plain, item = _plain_type(hint)
    if item:
        return f"a tuple of {item.__name__}"
    return " or ".join((plain.__name__, *words_beside(hint)))


def _choices(allowed: Allowed, hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    return allowed.choices or (get_args(hint) if get_origin(hint) is Literal else ())


def _choice_words(allowed: Allowed, hint: Any) -> str:
    return ", ".join(str(word) or '""' for word in _choices(allowed, hint))
