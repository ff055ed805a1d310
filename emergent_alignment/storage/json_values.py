"""Values as JSON holds them, and what may be read out of JSON that others may have written."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

MOST_NESTED = 100  # lists and objects within each other; nobody writes more, and walks recurse
_TOO_DEEP = f"lists and objects are nested more than {MOST_NESTED} deep"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class UnreadableJson(ValueError):
    """Text that is no JSON value, or one that nobody means; says why in one line."""


def parse_json(text: str | bytes, *, finite: bool = False) -> Any:
    """The JSON value that a text, or bytes of UTF-8, spell: what others have written is read by
    this alone. A BOM before it is no part of it. With `finite`, NaN and infinities are refused.

    Raises UnreadableJson for what is not JSON, is nested more than MOST_NESTED deep, has a field
    twice, a number of thousands of digits, or half a letter (a lone surrogate).
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(
            text.removeprefix("\ufeff"),
            object_pairs_hook=_without_repeats,
            parse_constant=_finite if finite else None,
            parse_float=_finite if finite else None,
        )
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise UnreadableJson(f"{error.msg}, {line}column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise UnreadableJson(f"byte {error.start} is not UTF-8") from None
    except UnreadableJson:
        raise
    except RecursionError:
        raise UnreadableJson(_TOO_DEEP) from None
    except ValueError:  # what int() says of a number that it does not read
        raise UnreadableJson("a number has thousands of digits") from None
    if text.count("[") + text.count("{") > MOST_NESTED and _is_deep(value):
        raise UnreadableJson(_TOO_DEEP)
    if _SURROGATE.search(text) and not is_whole(json.dumps(value, ensure_ascii=False)):
        raise UnreadableJson("a text holds half a letter (a lone surrogate)")
    return value


def is_whole(text: str) -> bool:
    """Whether UTF-8 can hold the text: no surrogate stands alone in it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


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


def number_said(value: object) -> float | None:
    """The number that a value is, or that a table's cell spells, infinities included; None for
    anything else, and for NaN."""
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def finite_numbers(value: object) -> list[float]:
    """The finite numbers of a JSON list; of anything else, none."""
    return [float(number) for number in as_list(value) if is_number(number)]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these fields, none of which may stand twice: all but the last were lost."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnreadableJson(f"the field {twice[:60]!r} stands twice in an object")
    return fields


def _finite(spelled: str) -> float:
    number = float(spelled)
    if not math.isfinite(number):
        raise UnreadableJson(f"{spelled[:20]} is no finite number")
    return number


def _is_deep(value: Any) -> bool:
    """Whether a value is nested more than MOST_NESTED deep; looked at level by level."""
    level = [value]
    for _ in range(MOST_NESTED + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
