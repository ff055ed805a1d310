"""A backend of `serve` that does, at a draft or at its review, what the request's case says."""

import gzip
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field

import fake_endpoint as fake
from fake_endpoint import Reply, completion, is_review, response

KEY = "sk-campaign-0123456789"
_CASE = re.compile(r"CASE<([^|>]+)\|(\w+)>")
_TEXT = re.compile(r"(?:DRAFT|FIXED)-\w+")
_DRIPS = 80


def _dripping(part: bytes, before: bytes = b"") -> Reply:
    return Reply((before, *[part] * _DRIPS), "hang", delay=0.05)


def _zipped(whole: Reply, cut: int) -> Reply:
    body = gzip.compress(whole.parts[0].partition(b"\r\n\r\n")[2])
    return Reply((response(body[: len(body) - cut], headers="Content-Encoding: gzip\r\n"),))


def _lengthened(whole: Reply, more: int) -> Reply:
    head, _, body = whole.parts[0].partition(b"\r\n\r\n")
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % (len(body) + more), head)
    return Reply((head + b"\r\n\r\n" + body,), "close")


def _numbered(value: str) -> Reply:
    """A review whose log-probs are not what they should be."""
    listed = f'[{{"token": "Yes", "logprob": {value}}}]'
    token = f'{{"token": "Yes", "logprob": -0.1, "top_logprobs": {listed}}}'
    choice = f'{{"message": {{"content": "Yes"}}, "logprobs": {{"content": [{token}]}}}}'
    return Reply((response(f'{{"choices": [{choice}]}}'),))


# What becomes of a whole reply that holds a text (a draft, or a verdict).
FAULTS = {
    "hangs": lambda whole, text: fake.hang(),
    "dies": lambda whole, text: Reply((whole.parts[0][:-30],), "close"),
    "closes at once": lambda whole, text: Reply((), "close"),
    "drips its head": lambda whole, text: _dripping(b"X-A: b\r\n", b"HTTP/1.1 200 OK\r\n"),
    "drips its body": lambda whole, text: _dripping(b" ", b"HTTP/1.1 200 OK\r\n\r\n" + text),
    "100 Continue": lambda whole, text: _dripping(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "HTTP 500": lambda whole, text: fake.failure(500, text.decode()),
    "HTTP 429": lambda whole, text: fake.failure(429, text.decode(), "Retry-After: 99\r\n"),
    "HTTP 400 and the key": lambda whole, text: fake.failure(400, f"Bearer {KEY} {text}"),
    "rubbish": lambda whole, text: Reply((response(b"<html>" + text),)),
    "deep JSON": lambda whole, text: Reply((response(b'{"choices": ' + b"[" * 100_000),)),
    "huge": lambda whole, text: Reply((response(text + b" " * (17 << 20)),)),
    "broken gzip": lambda whole, text: _zipped(whole, 12),
    "no gzip": lambda whole, text: Reply((response(text, headers="Content-Encoding: gzip\r\n"),)),
    "length too long": lambda whole, text: _lengthened(whole, 9),
    "length too short": lambda whole, text: _lengthened(whole, -9),
    "no HTTP": lambda whole, text: Reply((text + KEY.encode() + b"\r\n\r\n",), "close"),
}
REVIEWS = {
    "NaN": _numbered("NaN"),
    "-Infinity": _numbered("-1e999"),
    "400 digits": _numbered("-" + "9" * 400),
    "positive": _numbered("3.5"),
    "No alone": completion("No", {"No": -0.01}),
    "No alone, unlikely": completion("No", {"No": -0.8}),
    "tie": completion("Yes", {"Yes": -0.7, "No": -0.7}),
    "says neither": completion("I cannot say yes", {"I": -0.1}),
    "null": completion(None),
}
_GROUPS = {
    "backend: slow or silent": ("hangs", "drips its head", "drips its body", "100 Continue"),
    "backend: dies": ("dies", "closes at once", "length too long"),
    "backend: says that it fails": ("HTTP 500", "HTTP 429"),
    "backend: rubbish": ("rubbish", "deep JSON", "huge", "no HTTP", "length too short"),
    "backend: encodings": ("broken gzip", "no gzip", "whole gzip"),
    "backend: more than one reply": ("surplus reply",),
    "backend: echoes the key": ("HTTP 400 and the key", "echoes the key"),
    "backend: says nothing": ("null",),
    "review: impossible log-probs": ("NaN", "-Infinity", "400 digits", "positive"),
    "review: undecided": ("No alone", "No alone, unlikely", "tie", "says neither"),
    "backend: as it should": ("whole",),
}
CASES = (
    *(f"{at}: {name}" for at in ("draft", "review") for name in FAULTS),
    *(f"review: {name}" for name in REVIEWS),
    *("draft: null", "draft: echoes the key", "draft: whole gzip", "review: whole"),
    *("draft: surplus reply", "review: surplus reply"),
)


def group_of(kind: str) -> str:
    """What one of CASES is counted as."""
    fault = kind.partition(": ")[2]
    return next(name for name, faults in _GROUPS.items() if fault in faults)


@dataclass
class Script:
    """The backend. `approved` holds the texts for which a whole Yes was sent, `calls` the number
    of calls for each request."""

    approved: set[str] = field(default_factory=set)
    calls: Counter = field(default_factory=Counter)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, body: dict) -> Reply:
        said = body["messages"][-1]["content"]
        kind, number = _CASE.search(said).groups()
        with self._turn:
            self.calls[number] += 1
        at, _, fault = kind.partition(": ")
        if is_review(body):
            judged = _TEXT.findall(said)[-1:]
            if at == "review" and fault not in ("whole", "surplus reply"):
                return REVIEWS[fault] if fault in REVIEWS else FAULTS[fault](_yes(), b"Yes")
            self.approved.update(judged)
            surplus = _yes().parts[0] if fault == "surplus reply" else b""
            return Reply((_yes().parts[0] + surplus,))
        text = f"FIXED-{number}" if "Rewrite the answer" in said else f"DRAFT-{number}"
        return self._draft(fault if at == "draft" else "", text)

    def _draft(self, fault: str, text: str) -> Reply:
        whole = completion(text)
        if fault in FAULTS:
            return FAULTS[fault](whole, text.encode())
        if fault == "null":
            message = {"role": "assistant", "content": None}
            choice = {"message": message, "finish_reason": "stop"}
            return Reply((response(json.dumps({"choices": [choice]})),))
        if fault == "echoes the key":
            return completion(f"{text} {KEY}")
        if fault == "whole gzip":
            return _zipped(whole, 0)
        if fault == "surplus reply":
            return Reply((whole.parts[0] + completion("DRAFT-surplus").parts[0], whole.parts[0]))
        return Reply(whole.parts, delay=0.5) if fault == "slow" else whole


def _yes() -> Reply:
    return completion("Yes", fake.YES)
