"""A conversation as plain values, and how one is read from a row of somebody's file: what a field
says is kept, or the row is refused; nothing is left out in silence.
"""

import json
from dataclasses import dataclass
from typing import Any

from emergent_alignment.data import tools
from emergent_alignment.data.reasoning import split_reasoning, with_reasoning
from emergent_alignment.errors import UserError

# {"role": one of SPEAKERS, "content": its text}; which roles a model's template shows is its own.
# Until it is written out (written_out.py) a message of a row with tools has their fields, too.
Message = dict[str, str]
CONTENT_PARTS = "parts"  # a list of texts that the content was, as JSON
SPEAKERS = ("system", "developer", "user", "assistant", "tool", "function")
ASKING = ("user", "tool", "function")  # whose turns an answer follows
# How files say which turns are learnt: 1 and true, 0 and false.
FLAGS = ("weight", "loss", "train", "training")
# What files call the reasoning that an assistant's turn has apart from its content.
REASONING = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class Conversation:
    """The messages of a row, of each whether the row says that it is learnt (None where it says
    nothing), and whether one has its reasoning in a field of its own: it stands before the content
    then, as models write it."""

    messages: list[Message]
    learnt: list[bool | None]
    reasoned: bool = False


def read_conversation(value: Any, where: str, *, whole: bool = False) -> Conversation:
    """A list of messages, or a text, which is a user's turn. Raises UserError, which begins with
    `where`, for anything else, and for what a message says beside role, text, FLAGS and
    REASONING; where it is read `whole`, tools' calls and replies and the parts of a content are
    kept beside them."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: a conversation must be a list of at least one message")
    turns = [_turn(message, f"{where}: message {i}", whole) for i, message in enumerate(value)]
    reasoned = any(not is_absent(message.get(name)) for message in value for name in REASONING)
    return Conversation([turn for turn, _ in turns], [flag for _, flag in turns], reasoned)


def read_messages(value: Any, where: str) -> list[Message]:
    """The messages alone, of a conversation whose turns are not learnt from. Raises UserError."""
    return read_conversation(value, where).messages


def text_of(content: Any) -> str | None:
    """The text of a message's content: itself, or its parts of the type text, each on lines of its
    own, as vLLM and llama.cpp put them before templates that know texts alone; None where anything
    else is in it."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    texts = [_text_of_part(part) for part in content]
    return None if None in texts or not texts else "\n".join(texts)


def is_absent(value: Any) -> bool:
    """Whether a field says nothing: tables have it in all rows, where it is in any."""
    return value is None or (isinstance(value, str | list | dict) and len(value) == 0)


def _turn(message: Any, where: str, whole: bool) -> tuple[Message, bool | None]:
    calls = whole and isinstance(message, dict) and not is_absent(message.get(tools.CALLS))
    needed = {"role"} if calls else {"role", "content"}
    if not isinstance(message, dict) or not needed <= message.keys():
        raise UserError(f"{where} must have the fields role and content")
    role, content = message["role"], message.get("content")
    text = "" if calls and content is None else text_of(content)
    if role not in SPEAKERS:
        raise UserError(f"{where} has the role {role!r:.60}; known are {', '.join(SPEAKERS)}")
    said = {name for name, value in message.items() if not is_absent(value)}
    of_tools = tools.TOOL_FIELDS.get(role, ()) if whole else ()
    unread = sorted(map(str, said - {"role", "content", *FLAGS, *REASONING, *of_tools}))
    if unread:
        raise UserError(
            f"{where} has the field {unread[0]!r:.60}, which is not read: only texts are learnt "
            "here; write what it says into the content, or remove it"
        )
    if text is None:
        raise UserError(f"{where}: content must be a text, or a list of parts of the type text")
    turn = {"role": role, "content": _with_reasoning(message, text, where)}
    if whole and isinstance(content, list) and len(content) > 1:
        turn[CONTENT_PARTS] = json.dumps(content, ensure_ascii=False)
    return turn | (tools.tool_fields(message, where) if whole else {}), _flag(message, where)


def _with_reasoning(message: dict, text: str, where: str) -> str:
    names = [name for name in REASONING if not is_absent(message.get(name))]
    if not names:
        return text
    thought = message[names[0]]
    if message["role"] != "assistant":
        raise UserError(f"{where}: {names[0]} stands in a turn that is not the assistant's")
    if not isinstance(thought, str):
        raise UserError(f"{where}: {names[0]} must be a text, not {thought!r:.60}")
    if split_reasoning(text)[0] or any(message[name] != thought for name in names):
        raise UserError(
            f"{where}: reasoning stands in {' and in '.join([*names, 'the content'][:2])}; remove "
            "one of them"
        )
    return with_reasoning(thought, text)


def _flag(message: dict, where: str) -> bool | None:
    flags = {name: message[name] for name in FLAGS if not is_absent(message.get(name))}
    for name, value in flags.items():
        if value not in (0, 1):
            raise UserError(f"{where}: {name} must be 0 or 1, not {value!r:.60}")
    if len(set(map(bool, flags.values()))) > 1:
        raise UserError(f"{where}: {' and '.join(flags)} contradict each other; remove one")
    learnt = next((bool(value) for value in flags.values()), None)
    if learnt and message["role"] != "assistant":
        raise UserError(
            f"{where}: {next(iter(flags))} says that a {message['role']} turn is learnt; only the "
            "assistant's are; remove it"
        )
    return learnt


def _text_of_part(part: Any) -> str | None:
    if not isinstance(part, dict) or part.get("type") != "text":
        return None
    more = [value for name, value in part.items() if name not in ("type", "text")]
    text = part.get("text")
    return text if isinstance(text, str) and all(map(is_absent, more)) else None
