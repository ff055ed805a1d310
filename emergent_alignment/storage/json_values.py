"""Values as JSON holds them, and what may be read out of JSON that others may have written."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def finite_or_none(number: float) -> float | int | None:
    """A plain number (NumPy's too), or None, which is JSON's null, for NaN and infinities."""
    if not math.isfinite(number):
        return None
    return number if isinstance(number, int) else float(number)


def plain(value: Any) -> Any:
    """The value as JSON gives it back: tuples as lists, keys as texts. Only then can it be compared
    with what was read from a file."""
    return json.loads(json.dumps(value))


def digest(value: Any, **how: bool) -> str:
    """16 hex digits that say which JSON value it is. `how` it is spelt (json.dumps' own options)
    decides the digits, too: who has kept some spells it so for ever."""
    return hashlib.sha256(json.dumps(value, **how).encode()).hexdigest()[:16]


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def as_object(value: object) -> dict:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list:
    """`value` if it is a JSON list, else an empty one."""
    return value if isinstance(value, list) else []


def is_number(value: object) -> bool:
    """Whether `value` is a finite JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def finite_numbers(value: object) -> list[float]:
    """The finite numbers of a JSON list; of anything else, none."""
    return [float(number) for number in as_list(value) if is_number(number)]
