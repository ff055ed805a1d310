"""The answers of an evaluation as its folder keeps them, and which answer a record is about: a
named tuple, such as (question, wording, number)."""

from collections.abc import Mapping
from typing import Any

ANSWERS = "answers"  # the part of the folder
Place = Any  # a NamedTuple of JSON values


def place_of(kind: type, record: Mapping) -> Place:
    """The place, a named tuple of class `kind`, that a record is about."""
    return kind(*(record[name] for name in kind._fields))
