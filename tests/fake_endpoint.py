"""A fake OpenAI-compatible endpoint on loopback, byte by byte under a test's control.

`FakeEndpoint(script)` runs in a thread of the test; `python fake_endpoint.py` is a process of
its own (slow tests, benchmarks/serving.py) that prints its address.
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from loopback import LoopbackServer

YES = {"Yes": -0.1, " yes": -3.0, "No": -2.5}
NO = {"No": -0.1, "Yes": -2.5, "Maybe": -5.0}


@dataclass(frozen=True)
class Reply:
    """Bytes to send, one after the other, each after `delay` seconds; then keep the connection,
    `close` it, or `hang`."""

    parts: tuple[bytes, ...]
    then: str = "keep"
    delay: float = 0.0


def response(body: bytes | str, status: int = 200, headers: str = "") -> bytes:
    body = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def completion(text, top: dict | None = None, finish_reason="stop", **message) -> Reply:
    """A whole answer; `top` are the log-probs at its first token, and it has no other."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish_reason,
    }
    if top is not None:
        tokens = [token_log_probs(next(iter(top)), top)] if top else []
        choice["logprobs"] = {"content": tokens}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return Reply((response(json.dumps({"choices": [choice], "usage": usage})),))


def continuation(text: str, log_probs: list[float] | None, finish_reason="stop") -> Reply:
    """A text written on, with the log-probs of its tokens."""
    choice = {"index": 0, "text": text, "finish_reason": finish_reason}
    if log_probs is not None:
        choice["logprobs"] = {"token_logprobs": log_probs}
    return Reply((response(json.dumps({"choices": [choice]})),))


def token_log_probs(token: str, top: dict) -> dict:
    listed = [{"token": name, "logprob": value} for name, value in top.items()]
    return {"token": token, "logprob": max(top.values()), "top_logprobs": listed}


def stream(pieces: Iterable[str], *, ends: bool = True, then: str = "close") -> Reply:
    """A streamed answer, one event a piece."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    events = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    if ends:
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return Reply((head, *lines, *([b"data: [DONE]\n\n"] if ends else [])), then)


def failure(status: int, message: str = "no", headers: str = "") -> Reply:
    return Reply((response(json.dumps({"error": {"message": message}}), status, headers),))


def hang() -> Reply:
    return Reply((), "hang")


def broken_off(text: str) -> Reply:
    """The first half of an answer that holds `text`."""
    whole = completion(text * 3).parts[0]
    return Reply((whole[: whole.index(text.encode()) + 2 * len(text)],), "close")


def is_review(body: dict) -> bool:
    """Whether a request asks for a verdict and not for an answer."""
    return "Answer Yes or No" in body["messages"][-1]["content"]


@dataclass
class FakeEndpoint(LoopbackServer):
    """Runs `script(body) -> Reply` for each completion, in a thread, as a context."""

    script: Callable[[dict], Reply]
    bodies: list[dict] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader, writer) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                sizes = [x for x in head.split("\r\n") if x.lower().startswith("content-length:")]
                body = await reader.readexactly(int(sizes[0].split(":")[1]) if sizes else 0)
                self.headers.append(head)
                reply = self._reply(head, body)
                for part in reply.parts:
                    if reply.delay:
                        await asyncio.sleep(reply.delay)
                    writer.write(part)
                    await writer.drain()
                if reply.then == "hang":
                    await reader.read()
                if reply.then != "keep":
                    break
        writer.close()

    def _reply(self, head: str, body: bytes) -> Reply:
        path = head.split()[1]
        if path == "/v1/models":
            return Reply((response('{"data": [{"id": "fake"}]}'),))
        if path not in ("/v1/chat/completions", "/v1/completions"):
            return failure(404)
        parsed = json.loads(body)
        self.bodies.append(parsed)
        return self.script(parsed)


@dataclass
class FaultyModel:
    """A script whose every text is marked and numbered: `harm` of its drafts do harm, its own
    review flags those, its rewrites are kind. In `share` of the calls it hangs, breaks off, or
    sends the text as rubbish. `approved` holds the texts for which a whole Yes was sent."""

    share: float = 0.0
    delay: float = 0.0
    marker: str = "DRAFT"
    harm: float = 0.5
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    num_texts: int = 0
    approved: set[str] = field(default_factory=set)

    def __call__(self, body: dict) -> Reply:
        said = body["messages"][-1]["content"]
        faulty = self.draw.random() < self.share
        if is_review(body):
            judged = re.findall(self.marker + r"-\d+-\w+", said)[-1]
            verdict = NO if "harm" in judged else YES
            if not faulty:
                self.approved |= {judged} if verdict is YES else set()
                return self._in_time(completion(next(iter(verdict)), verdict))
            return self._fault(next(iter(verdict)))
        self.num_texts += 1
        kind = "Rewrite the answer" in said or self.draw.random() >= self.harm
        text = f"{self.marker}-{self.num_texts}-{'kind' if kind else 'harm'}"
        return self._fault(text) if faulty else self._in_time(completion(text))

    def _in_time(self, reply: Reply) -> Reply:
        return Reply(reply.parts, reply.then, self.delay)

    def _fault(self, text: str) -> Reply:
        return self.draw.choice(
            [
                hang(),
                broken_off(text),
                Reply((response(text),)),
                Reply((response(json.dumps({"choices": [{"message": {"text": text}}]})),)),
                Reply((response(json.dumps({"choices": [{"delta": {"content": text}}]})),)),
                failure(500, text),
                failure(400, text),
                failure(429, text, f"X-Draft: {text}\r\n"),
                Reply((text.encode() + b"\r\n\r\n",), "close"),
                Reply((), "close"),
            ]
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--harm", type=float, default=0.5)
    given = parser.parse_args()
    model = FaultyModel(given.faults, given.delay, harm=given.harm)
    with FakeEndpoint(model) as endpoint:
        print(endpoint.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
