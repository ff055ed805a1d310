"""What a JSON value may be: the schema of a file that this package writes, said as a value beside
the code that writes it, and what is wrong with a value that others may have changed.

    {"steps": Number(0, whole=True), "chosen": {"question": Text(("advice", "careful"))}}

A dict is an object that has these fields at least, a list of one shape a list of such values.
"""

import math
from dataclasses import dataclass
from typing import Any

Shape = Any  # a dict, a list of one, or one of the classes below
_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
_SHOWN = 40  # letters of a wrong value that are told


@dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`; `whole`: without a fraction."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False


@dataclass(frozen=True)
class Text:
    """A text; one of `choices`, where there are any."""

    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class OrNull:
    """`shape`, or null."""

    shape: Shape


@dataclass(frozen=True)
class Optional(OrNull):
    """The same; a field of it may be absent, too."""


@dataclass(frozen=True)
class IntervalShape:
    """[value, low, high] in their order, all from `least` to `most`."""

    least: float = 0.0
    most: float = 1.0


@dataclass(frozen=True)
class Mapped:
    """An object of any fields, whose values all have one shape."""

    shape: Shape


class Both:
    """Whatever has each of some shapes."""

    def __init__(self, *shapes: Shape):
        self.shapes = shapes


FLAG = bool


def misfit(value: Any, shape: Shape, place: str = "") -> str:
    """What is wrong with a value, with the field that it is in; "" where it has the shape."""
    if isinstance(shape, OrNull):
        return "" if value is None else misfit(value, shape.shape, place)
    if isinstance(shape, dict):
        return _of_object(value, shape, place)
    if isinstance(shape, Mapped):
        if not isinstance(value, dict):
            return _said(place, _NAMES[dict], value)
        fields = dict.fromkeys(value, shape.shape)
        return _of_object(value, fields, place)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _said(place, _NAMES[list], value)
        misfits = (misfit(one, shape[0], f"{place}[{i}]") for i, one in enumerate(value))
        return next(filter(None, misfits), "")
    if isinstance(shape, Both):
        return next(filter(None, (misfit(value, one, place) for one in shape.shapes)), "")
    if isinstance(shape, IntervalShape):
        return _of_interval(value, shape, place)
    if isinstance(shape, Number):
        return _of_number(value, shape, place)
    if isinstance(shape, Text):
        return _of_text(value, shape, place)
    return "" if isinstance(value, shape) else _said(place, _NAMES[shape], value)


def _of_object(value: Any, fields: dict, place: str) -> str:
    if not isinstance(value, dict):
        return _said(place, _NAMES[dict], value)
    for name, shape in fields.items():
        at = f"{place}.{name}" if place else name
        if name not in value and not isinstance(shape, Optional):
            return f"{at} is missing"
        if wrong := misfit(value.get(name), shape, at):
            return wrong
    return ""


def _of_interval(value: Any, shape: IntervalShape, place: str) -> str:
    words = f"[value, low, high] from {shape.least:g} to {shape.most:g}"
    number = Number(shape.least, shape.most)
    fits = isinstance(value, list) and len(value) == 3
    fits = fits and not any(misfit(one, number) for one in value)
    return "" if fits and value[1] <= value[0] <= value[2] else _said(place, words, value)


def _of_number(value: Any, shape: Number, place: str) -> str:
    words = "a whole number" if shape.whole else "a finite number"
    if shape.low > -math.inf:
        words += f" from {shape.low:g}"
    if shape.high < math.inf:
        words += f" to {shape.high:g}" if shape.low > -math.inf else f", at most {shape.high:g}"
    fits = isinstance(value, int if shape.whole else int | float) and not isinstance(value, bool)
    fits = fits and abs(value) < math.inf and shape.low <= value <= shape.high
    return "" if fits else _said(place, words, value)


def _of_text(value: Any, shape: Text, place: str) -> str:
    if isinstance(value, str) and (not shape.choices or value in shape.choices):
        return ""
    words = f"one of {', '.join(map(repr, shape.choices))}" if shape.choices else _NAMES[str]
    return _said(place, words, value)


def _said(place: str, wanted: str, value: Any) -> str:
    try:
        shown = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        shown = type(value).__name__
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    return f"{place or 'it'} must be {wanted}, not {shown}"
