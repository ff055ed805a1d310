"""What an OpenAI-compatible endpoint answers, read strictly: text, its end, and log-probs.

No connection is made here; generation/endpoint.py does that.
"""

import codecs
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

_CUT = ("length", "max_tokens", "max_length", "model_length")
_GAVE_UP = ("abort", "aborted", "cancelled", "error")
_MOST_TOKENS = 1 << 31
# Log-probs that can be meant: some servers say −9999 for what is impossible, and round at 0.
_LEAST, _IMPOSSIBLE, _ROUNDED = -1e39, -9999.0, 1e-3
_MOST_MASS = 1.05  # of the likeliest tokens together, rounded: more are no probabilities


@dataclass(frozen=True)
class TokenLogProbs:
    """One token of a completion: its text, its log-prob in nats, and those of the likeliest
    tokens at its place."""

    token: str
    log_prob: float
    top: dict[str, float]


@dataclass(frozen=True)
class Completion:
    """One answer of an endpoint.

    text               the answer
    finish_reason      "stop", "length" (cut by the limit), or what else the endpoint says
    tokens             its tokens with their log-probs, where these were asked for
    reasoning          what the endpoint gave apart from the answer as the model's reasoning
    prompt_tokens, completion_tokens   the endpoint's own count; 0 where it gives none
    """

    text: str
    finish_reason: str
    tokens: tuple[TokenLogProbs, ...] = ()
    reasoning: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Continuation:
    """What a model behind an endpoint has written on.

    text           of its tokens, special ones left out
    finish_reason  as that of a Completion
    log_probs      of its tokens, as far as the endpoint tells them
    tokens         their ids; () where the endpoint does not tell them
    """

    text: str
    finish_reason: str
    log_probs: tuple[float, ...]
    tokens: tuple[int, ...] = ()


class Unreadable(ValueError):
    """An answer that is not a chat completion: `what` it is instead, and the start of what was
    `said`, which may be anybody's text."""

    def __init__(self, what: str, said: bytes | str = b""):
        super().__init__(what)
        self.what, self.said = what, said


class BrokenOff(ValueError):
    """An answer that stops before its end."""


def json_object_of(body: bytes) -> dict:
    """A JSON object from bytes. Raises Unreadable where they are anything else."""
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise Unreadable("something that is not JSON", body) from None
    if not isinstance(document, dict):
        raise Unreadable("JSON that is not an object", body)
    return document


def read_completion(body: bytes) -> Completion:
    """The first choice of a chat completion. Raises Unreadable where there is no message of the
    assistant in it, and BrokenOff where the endpoint says that it gave up."""
    document = json_object_of(body)
    choice = _first_choice(document)
    message = choice.get("message")
    text, reasoning = _said(message) if isinstance(message, dict) else (None, "")
    is_said = isinstance(message, dict) and message.get("role") == "assistant"
    if text is None and not is_said:
        raise Unreadable("a choice without text", body)
    return Completion(
        whole_text(text or ""),
        _finish_reason(choice),
        _tokens(choice),
        reasoning,
        *_usage(document),
    )


def read_continuation(body: bytes) -> Continuation:
    """The first choice of a completion behind a prompt of tokens. Raises Unreadable where there is
    no text in it, or log-probs or ids that are none, and BrokenOff as `read_completion`."""
    choice = _first_choice(json_object_of(body))
    text, held, tokens = choice.get("text"), choice.get("logprobs"), choice.get("token_ids")
    if not isinstance(text, str):
        raise Unreadable("a choice without text", body)
    log_probs = held.get("token_logprobs") if isinstance(held, dict) else None
    log_probs = log_probs if isinstance(log_probs, list) else []
    if not all(_is_log_prob(value) for value in log_probs):
        raise Unreadable("log-probs that cannot be read", body)
    tokens = tokens if isinstance(tokens, list) else []
    if not all(type(token) is int and 0 <= token < _MOST_TOKENS for token in tokens):
        raise Unreadable("token ids that are none", body)
    return Continuation(
        whole_text(text), _finish_reason(choice), tuple(map(_bounded, log_probs)), tuple(tokens)
    )


def read_stream(lines: Iterable[bytes], on_text: Callable[[str], None]) -> Completion:
    """A streamed chat completion; each piece of its text is told to `on_text` as it comes.

    Raises Unreadable for an event that is no chunk of one, and BrokenOff where neither a
    finish_reason nor [DONE] comes, or the endpoint says that it gave up.
    """
    texts, reasonings, tokens = [], [], []
    finish_reason, done, usage, half = "", False, (0, 0), ""
    for event in _events(lines):
        if event == b"[DONE]":
            done = True
            break
        document = json_object_of(event)
        usage = _usage(document) if document.get("usage") else usage
        has_no_choices = not document.get("choices") and {"choices", "usage"} & document.keys()
        if has_no_choices and not document.get("error"):
            continue  # the chunk of the usage
        choice = _first_choice(document)
        if choice.get("index") not in (0, None):
            continue  # of another answer
        text, reasoning = _said(_delta(choice, event, begun=bool(texts)))
        if text:
            texts.append(text)
            told, half = _without_half(half + text)
            if told:
                on_text(whole_text(told))
        reasonings.append(reasoning)
        tokens.extend(_tokens(choice))
        finish_reason = _finish_reason(choice) or finish_reason
    if not (done or finish_reason):
        raise BrokenOff
    if half:
        on_text(whole_text(half))
    return Completion(
        whole_text("".join(texts)), finish_reason, tuple(tokens), "".join(reasonings), *usage
    )


def shortened(body: bytes | str, limit: int = 120) -> str:
    """The start of what came back, on one line."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    text = " ".join(text.split())
    return repr(text if len(text) <= limit else text[:limit] + "…")


def whole_text(text: str) -> str:
    """The text with surrogates joined, and replaced where they stand alone: JSON can spell
    them, UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _without_half(text: str) -> tuple[str, str]:
    """A text up to the half of a letter that it may end with, and that half: the rest comes with
    the next piece."""
    cut = len(text) - ("\ud800" <= text[-1] <= "\udbff")
    return text[:cut], text[cut:]


def _delta(choice: dict, event: bytes, *, begun: bool) -> dict:
    """What a chunk adds. Raises Unreadable where it has no such thing."""
    delta = choice.get("delta")
    if delta is None and isinstance(choice.get("message"), dict):
        return {} if begun else choice["message"]  # the whole, at the end or at once
    if delta is None and isinstance(choice.get("finish_reason"), str):
        return {}  # the last chunk of some has none
    if not isinstance(delta, dict):
        raise Unreadable("an event without a delta", event)
    return delta


def _events(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The data of server-sent events, of which each of ours is one line; empty ones keep a
    connection alive."""
    for line in lines:
        line = line.removeprefix(codecs.BOM_UTF8)
        data = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and data:
            yield data


def _first_choice(document: dict) -> dict:
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Unreadable("no chat completion", _spelled(document))
    if document.get("error") or choices[0].get("error"):  # after what it has said by then
        raise BrokenOff
    return choices[0]


def _said(message: dict) -> tuple[str | None, str]:
    """What is said: a text, or a list of texts, or why nothing else is said; None where the
    message has nothing of it (null: a model that only reasoned). And what was thought before,
    which stands apart or among the parts. Raises Unreadable."""
    content, refusal, thought = message.get("content"), message.get("refusal"), ""
    if isinstance(content, list):
        parts = [_part(part, message) for part in content]
        thought = "".join(text for is_thought, text in parts if is_thought)
        content = "".join(text for is_thought, text in parts if not is_thought)
    for said in (content, refusal):
        if not isinstance(said, str | None):
            raise Unreadable("a message whose content is no text", _spelled(message))
    named = [message.get(name) for name in ("reasoning_content", "reasoning", "thinking")]
    apart = next((text for text in named if isinstance(text, str) and text), "")
    return content or refusal or content, whole_text(apart or thought)


def _part(part: object, message: dict) -> tuple[bool, str]:
    """Whether a part of a content was thought, and its text."""
    kind, text = "", None
    if isinstance(part, dict) and isinstance(part.get("type", ""), str):
        kind = part.get("type", "")
        text = part.get(kind, part.get("text"))
    if isinstance(text, list):  # a thinking part of Mistral's has parts in turn
        inner = [one.get("text") if isinstance(one, dict) else None for one in text]
        text = "".join(inner) if all(isinstance(one, str) for one in inner) else None
    if not isinstance(text, str):
        raise Unreadable("a message whose content is no text", _spelled(message))
    return kind in ("thinking", "reasoning"), text


def _spelled(value: object) -> str:
    """A value as JSON, as far as it can be written."""
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        return "nested too deep"


def _finish_reason(choice: dict) -> str:
    """How it ended, with one name for a limit that was reached."""
    reason = choice.get("finish_reason")
    named = reason.lower() if isinstance(reason, str) else ""
    if named in _GAVE_UP:
        raise BrokenOff
    return "length" if named in _CUT else named


def _usage(document: dict) -> tuple[int, int]:
    usage = document.get("usage")
    counts = [
        usage.get(name) if isinstance(usage, dict) else 0
        for name in ("prompt_tokens", "completion_tokens")
    ]
    return tuple(c if type(c) is int and 0 <= c <= _MOST_TOKENS else 0 for c in counts)


def _tokens(choice: dict) -> tuple[TokenLogProbs, ...]:
    held = choice.get("logprobs")
    listed = held.get("content") if isinstance(held, dict) else None
    return tuple(_token(entry) for entry in listed) if isinstance(listed, list) else ()


def _token(entry: object) -> TokenLogProbs:
    token, log_prob = _token_and_log_prob(entry)
    top: dict[str, float] = {}
    listed = entry.get("top_logprobs")
    for other in listed if isinstance(listed, list) else ():
        text, value = _token_and_log_prob(other)
        top[text] = max(value, top.get(text, -math.inf))
    if sum(map(math.exp, top.values())) > _MOST_MASS:
        raise Unreadable("log-probs that cannot be read", _spelled(entry))
    return TokenLogProbs(token, log_prob, top)


def _token_and_log_prob(entry: object) -> tuple[str, float]:
    if isinstance(entry, dict):
        token, value = entry.get("token"), entry.get("logprob")
        if isinstance(token, str) and _is_log_prob(value):
            return whole_text(token), _bounded(value)
    raise Unreadable("log-probs that cannot be read", _spelled(entry))


def _is_log_prob(value: object) -> bool:
    return type(value) in (int, float) and _LEAST <= value <= _ROUNDED


def _bounded(log_prob: float) -> float:
    return min(max(float(log_prob), _IMPOSSIBLE), 0.0)
