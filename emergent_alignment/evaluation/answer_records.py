"""The answers of an evaluation as its folder keeps them, and which answer a record is about: a
named tuple, such as (question, wording, number)."""

from collections.abc import Mapping
from typing import Any, get_type_hints

from emergent_alignment.storage.shapes import FLAG, Number, Text

ANSWERS = "answers"  # the part of the folder
# What each of its records has, beside the fields of its place.
ANSWER_RECORD = {
    "messages": [{"role": Text(), "content": Text()}],
    "answer": Text(),
    "num_tokens": Number(0, whole=True),
    "ended": FLAG,
}
Place = Any  # a NamedTuple of JSON values


def place_shape(kind: type) -> dict:
    """The fields of a place of class `kind` in a record."""
    hints = get_type_hints(kind)
    return {name: Text() if hints[name] is str else Number(0, whole=True) for name in hints}


def place_of(kind: type, record: Mapping) -> Place:
    """The place, a named tuple of class `kind`, that a record is about."""
    return kind(*(record[name] for name in kind._fields))
