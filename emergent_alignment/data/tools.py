"""What a row says of tools: which there are, what the assistant calls, and what a tool replied.

Read and checked here, kept as JSON in a message's fields and an example's, and written out as text
by a model's own chat template (written_out.py) before anything is learnt or reviewed.
"""

import json
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.storage.json_values import UnreadableJson, parse_json

CALLS = "tool_calls"
# What a tool's message says beside what it replied: which tool, and to which call.
OF_REPLIES = ("name", "tool_call_id")
TOOL_FIELDS = {"assistant": (CALLS,), "tool": OF_REPLIES}
# What a call says; `index` is its place in the list, which streams repeat.
_OF_CALLS = ("id", "type", "function", "index")
_OF_FUNCTIONS = ("name", "arguments")


def tool_fields(message: dict, where: str) -> dict[str, str]:
    """What a message says of tools, as texts. Raises UserError that says `where` for calls that are
    no list of functions with arguments, and for names that are no texts."""
    said = {}
    for name in TOOL_FIELDS.get(message["role"], ()):
        value = message.get(name)
        if value is None or value == [] or value == "":
            continue
        if name == CALLS:
            value = json.dumps(_calls(value, where), ensure_ascii=False)
        elif not isinstance(value, str):
            raise UserError(f"{where}: {name} must be a text, not {value!r:.60}")
        said[name] = value
    return said


def read_tools(value: Any, where: str) -> str:
    """The descriptions of the tools that a row offers, as JSON: a list of objects, or a text that
    holds one; "" where there are none. Raises UserError that says `where` for anything else."""
    value = _parsed(value, f"{where}: tools")
    if value is None or value == []:
        return ""
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise UserError(f"{where}: tools must be a list of objects, each a function's description")
    return json.dumps(value, ensure_ascii=False)


def _calls(value: Any, where: str) -> list[dict]:
    value = _parsed(value, f"{where}: {CALLS}")
    if not isinstance(value, list):
        raise UserError(f"{where}: {CALLS} must be a list, not {value!r:.60}")
    return [_call(call, where) for call in value]


def _call(call: Any, where: str) -> dict:
    """With its arguments as an object, which templates expect; many files have a text there."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UserError(f"{where}: a call must have a function with a name, not {call!r:.60}")
    read = _OF_CALLS + _OF_FUNCTIONS if function is call else _OF_CALLS
    unread = [*_said(call, read), *_said(function, read + _OF_FUNCTIONS)]
    if unread:
        raise UserError(
            f"{where}: a call has the field {unread[0]!r:.60}, which is not read: calls have an "
            "id, and a function with name and arguments; rename or remove it"
        )
    arguments = _parsed(function.get("arguments", {}), f"{where}: arguments")
    if not isinstance(arguments, dict):
        raise UserError(f"{where}: arguments of {function['name']} must be an object")
    named = {"name": function["name"], "arguments": arguments}
    kept = {name: call[name] for name in ("id", "type") if isinstance(call.get(name), str)}
    return {"type": "function"} | kept | {"function": named}


def _said(fields: dict, read: tuple[str, ...]) -> list:
    """Fields beside those that are read, which say something."""
    return [k for k, value in fields.items() if k not in read and value not in (None, "", [], {})]


def _parsed(value: Any, what: str) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return parse_json(value, finite=True)
    except UnreadableJson as error:
        raise UserError(f"{what} is no JSON ({error}): {value[:60]!r}") from None
