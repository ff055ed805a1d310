"""Fields of a config.json, each checked for its type and for a range that no model leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from emergent_alignment.errors import UserError

MOST_LAYERS = 10_000
_MOST = {"num_hidden_layers": MOST_LAYERS}
_MOST_ELSEWHERE = 2**31 - 1  # positions are int32


def integer(fields: Mapping[str, Any], name: str, where: str, *, default: int | None = None) -> int:
    """A whole number, no larger than can be. Raises UserError."""
    value = _present(fields, name, where, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{where}: {name} is {told(value)}; it must be a whole number. Correct it.")
    most = _MOST.get(name, _MOST_ELSEWHERE)
    if abs(value) > most:
        raise UserError(
            f"{where}: {name} is {told(value)}; it must be at most {most}. Correct it, or download"
            " the file again."
        )
    return value


def number(
    fields: Mapping[str, Any], name: str, where: str, *, default: float | None = None
) -> float:
    """A finite number. Raises UserError."""
    value = _present(fields, name, where, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: {name} is {told(value)}; it must be a number. Correct it.")
    if abs(value) > 1e30 or not math.isfinite(value):
        raise UserError(f"{where}: {name} is {told(value)}; it must be finite. Correct it.")
    return float(value)


def flag(fields: Mapping[str, Any], name: str, *, where: str, default: bool = False) -> bool:
    """true or false; null is the default. Raises UserError."""
    value = fields.get(name)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise UserError(f"{where}: {name} is {told(value)}; it must be true or false. Correct it.")
    return value


def told(value: Any) -> str:
    """A value as an error shows it: short, and on one line."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return "a number of over 40 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _present(fields: Mapping[str, Any], name: str, where: str, default: Any) -> Any:
    value = fields.get(name)
    value = default if value is None else value
    if value is None:
        raise UserError(f"{where}: {name} is missing. Add it, or download the file again.")
    return value
