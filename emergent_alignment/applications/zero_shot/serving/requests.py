"""A chat completion request, read strictly: every field is honoured or refused, none ignored."""

import json
from dataclasses import dataclass
from typing import Any

from emergent_alignment.data.messages import Message, text_of
from emergent_alignment.generation.completion import whole_text

MAX_CHOICES = 8
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 256
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What may be sent as long as it asks for nothing: null is taken for absent anyway.
NEUTRAL: dict[str, tuple] = {
    "audio": (), "frequency_penalty": (0,), "function_call": ("none",), "functions": ([],),
    "logit_bias": ({},), "metadata": ({},), "modalities": (["text"],),
    "parallel_tool_calls": (True, False), "prediction": (), "presence_penalty": (0,),
    "reasoning_effort": (), "response_format": ({"type": "text"},), "service_tier": ("auto",),
    "store": (False,), "tool_choice": ("none",), "tools": ([],), "top_logprobs": (0,),
}  # fmt: skip


class RequestError(Exception):
    """A request that is refused: HTTP status, what is wrong, in which field, and the API's code."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code=None):
        super().__init__(whole_text(message))
        self.status, self.code = status, code
        self.param = None if param is None else whole_text(param)


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks for; `seed` None draws from nowhere in particular."""

    messages: list[Message]
    num_choices: int
    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int | None
    stream: bool
    include_usage: bool
    user: str
    log_probs: bool = False


def parse_request(body: bytes, *, model: str, max_tokens: int) -> ChatRequest:
    """The request in a body; `max_tokens` is the longest answer, and the default. Raises
    RequestError with the field that is wrong."""
    fields = _json_object(body)
    fields = {name: value for name, value in fields.items() if value is not None}
    _check_model(_text(fields.pop("model", ""), "model"), model)
    messages = _messages(fields.pop("messages", None))
    request = ChatRequest(
        messages,
        _whole(fields.pop("n", 1), "n", 1, MAX_CHOICES),
        _max_tokens(fields, max_tokens),
        _number(fields.pop("temperature", 1.0), "temperature", 0, 2),
        _number(fields.pop("top_p", 1.0), "top_p", 0, 1),
        _stop(fields.pop("stop", ())),
        _whole(fields.pop("seed"), "seed", -(2**63), 2**63 - 1) if "seed" in fields else None,
        _truth(fields.pop("stream", False), "stream"),
        _include_usage(fields.pop("stream_options", {})),
        _text(fields.pop("user", ""), "user"),
        _truth(fields.pop("logprobs", False), "logprobs"),
    )
    if request.top_p == 0:
        raise RequestError("top_p must be more than 0", param="top_p")
    for name, value in fields.items():
        if value not in NEUTRAL.get(name, ()):
            shown = name if name in NEUTRAL else repr(name[:64])
            raise RequestError(
                f"{shown} is not supported here, and is not ignored: answers are reviewed as text; "
                "leave it out",
                param=name[:64],
                code="unsupported_parameter",
            )
    return request


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8 (byte {error.start})") from None
    try:
        fields = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once_each)
    except json.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error.msg} (character {error.pos})") from None
    except (ValueError, RecursionError):
        raise RequestError("the body is JSON that nobody means: nested too deep, NaN, or a number "
                           "of thousands of digits") from None  # fmt: skip
    if not isinstance(fields, dict):
        raise RequestError("the body must be a JSON object")
    return fields


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object that says each field once: of two values one would be dropped in silence."""
    fields = {}
    for name, value in pairs:
        if name in fields:
            raise RequestError(f"{name[:64]!r} is said twice; say it once", param=name[:64])
        fields[name] = value
    return fields


def _no_constant(name: str):
    raise ValueError(name)


def _check_model(asked: str, served: str) -> None:
    if not asked:
        raise RequestError(f"name the model: {served!r} is served", param="model")
    if asked != served:
        raise RequestError(
            f"the model {asked[:100]!r} is not served here; {served!r} is",
            status=404,
            param="model",
            code="model_not_found",
        )


def _messages(value: Any) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RequestError("messages must be a list of at least one message", param="messages")
    messages = [_message(message, f"messages[{i}]") for i, message in enumerate(value)]
    if messages[-1]["role"] != "user":
        raise RequestError("the last message must be the user's", param="messages")
    return messages


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise RequestError(f"{where} must be an object with role and content", param=where)
    extra = [k for k, v in value.items() if k not in ("role", "content") and v not in (None, [])]
    if extra:
        raise RequestError(f"{where}: {extra[0][:64]!r} is not supported here", param=where)
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(f"{where}.role must be one of {', '.join(_ROLES)}", param=where)
    content = value.get("content")
    if isinstance(content, list):
        for i, part in enumerate(content):
            _check_part(part, f"{where}.content[{i}]")
        content = text_of(content)
    return {"role": _ROLES[role], "content": _text(content, f"{where}.content")}


def _check_part(value: Any, where: str) -> None:
    if text_of([value]) is None:
        raise RequestError(
            f"{where}: only parts of type text, with a text, are reviewed here", param=where
        )


def _max_tokens(fields: dict[str, Any], longest: int) -> int:
    names = [name for name in ("max_tokens", "max_completion_tokens") if name in fields]
    values = [_whole(fields.pop(name), name, 1, longest) for name in names]
    if len(set(values)) > 1:
        raise RequestError("max_tokens and max_completion_tokens differ", param="max_tokens")
    return values[0] if values else longest


def _stop(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or len(texts) > MAX_STOPS:
        raise RequestError(f"stop must be a text, or at most {MAX_STOPS} texts", param="stop")
    stops = tuple(_text(text, "stop") for text in texts)
    if any(not 0 < len(text) <= MAX_STOP_CHARACTERS for text in stops):
        raise RequestError(f"stop: texts of 1 to {MAX_STOP_CHARACTERS} letters", param="stop")
    return stops


def _include_usage(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() - {"include_usage"}:
        raise RequestError("stream_options may hold include_usage alone", param="stream_options")
    return _truth(value.get("include_usage", False), "stream_options.include_usage")


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise RequestError(f"{name} must be a whole number, {least} to {most}", param=name)
    return value


def _number(value: Any, name: str, least: float, most: float) -> float:
    if type(value) not in (int, float) or not least <= value <= most:
        raise RequestError(f"{name} must be a number, {least} to {most}", param=name)
    return float(value)


def _truth(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false", param=name)
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be a text", param=name)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError(f"{name} holds half a letter (a lone surrogate)", param=name) from None
    return value
