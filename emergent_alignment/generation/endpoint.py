"""An OpenAI-compatible endpoint as a source of text and log-probs, with deadlines and retries.

Calls are blocking and safe from several threads. Every failure is an `EndpointError` that says
what was asked, what came back, and what to set.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpcore2
import httpx2

from emergent_alignment.errors import UserError
from emergent_alignment.generation.completion import (
    BrokenOff,
    Completion,
    Continuation,
    TokenLogProbs,
    Unreadable,
    json_object_of,
    read_completion,
    read_continuation,
    read_stream,
    shortened,
    whole_text,
)
from emergent_alignment.generation.exchange import Server, has_port
from emergent_alignment.generation.wanted import check_wanted
from emergent_alignment.settings import Section, setting

__all__ = ["Completion", "Endpoint", "EndpointError", "TokenLogProbs"]

Kind = Literal["unreachable", "key", "request", "busy", "timeout", "rubbish", "no_log_probs"]
TRANSIENT: tuple[Kind, ...] = ("unreachable", "busy", "timeout", "rubbish")  # worth another try
MAX_ANSWER_BYTES = 16 << 20
MAX_REFUSAL_BYTES = 4 << 10
MAX_WAIT_SECONDS = 20.0


class EndpointError(UserError):
    """An endpoint gave nothing that can be used; `kind` says how it failed. The message may
    quote what the endpoint sent, which may be half an answer: it is never for a client, nor for a
    log. `unquoted` is the message without that."""

    def __init__(self, message: str, kind: Kind, unquoted: str = ""):
        super().__init__(message)
        self.kind, self.unquoted = kind, unquoted or message


class _Failed(Exception):
    """One attempt failed: how, what came back, what to set, what was said in words, how long to
    wait at least."""

    def __init__(
        self,
        kind: Kind,
        came_back: str,
        remedy: str,
        said: bytes | str = b"",
        wait_seconds: float = 0.0,
    ):
        super().__init__(came_back)
        self.kind, self.came_back, self.remedy = kind, came_back, remedy
        self.said, self.wait_seconds = said, wait_seconds


@dataclass(frozen=True)
class ServerSection(Section):
    """Where an OpenAI-compatible endpoint is, and how patiently it is asked."""

    base_url: str = setting("", "The endpoint's address, as http://127.0.0.1:8000/v1.")
    model: str = setting("", 'The model\'s name there; "": the only one that is served.')
    api_key_variable: str = setting(
        "OPENAI_API_KEY", "The environment variable that holds the key."
    )
    timeout_seconds: float = setting(
        60.0, "How long one attempt may take, whole answer included.", more_than=0, at_most=86400
    )
    retries: int = setting(2, "Further attempts after a failure that may pass.", at_least=0)


@dataclass(frozen=True)
class EndpointSection(ServerSection):
    """An OpenAI-compatible endpoint, where one drafts, reviews or judges."""

    top_logprobs: int = setting(
        20, "Likeliest tokens asked for at each place of a verdict.", more_than=0
    )
    verdict_tokens: int = setting(
        16, "Tokens of a verdict, at most; more for models that reason first.", more_than=0
    )


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible address.

    base_url         up to, and not with, /chat/completions: http://127.0.0.1:8000/v1
    model            the model's name there
    api_key          sent as a bearer token; "" sends none
    timeout_seconds  how long one attempt may take, whole answer included
    retries          further attempts after a failure that may pass, with growing waits
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    timeout_seconds: float = 60.0
    retries: int = 2
    _server: Server = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "base_url", _checked_address(self.base_url))
        headers = {"User-Agent": "emergent-alignment"}
        if self.api_key:
            if not self.api_key.isascii() or not self.api_key.isprintable():
                raise UserError(
                    f"{self.base_url}: the api_key holds characters that no key has (a line break, "
                    "a letter outside ASCII); set it again"
                )
            headers["Authorization"] = f"Bearer {self.api_key}"
        if self.timeout_seconds <= 0 or self.retries < 0:
            raise UserError("an endpoint's timeout_seconds must be more than 0, its retries 0 up")
        object.__setattr__(self, "_server", Server(httpx2.URL(self.base_url), headers))

    def chat(
        self,
        messages: list[dict[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        top_logprobs: int = 0,
        seed: int | None = None,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """One answer to a conversation. With `on_text` it is streamed, and each piece of text
        told as it comes; what has been told is not asked for again.

        Raises EndpointError where the endpoint is down, refuses the key or the request, is busy,
        takes too long, sends what is no completion, or no log-probs where they were asked for.
        """
        body = {
            "model": self.model,
            "messages": [
                {"role": turn["role"], "content": whole_text(turn["content"])} for turn in messages
            ],
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        body |= {"seed": seed} if seed is not None else {}
        body |= {"top_p": top_p} if top_p < 1 else {}
        body |= {"stop": list(stop)} if stop else {}
        body |= {"logprobs": True, "top_logprobs": top_logprobs} if top_logprobs else {}
        told: list[str] = []

        def once() -> Completion:
            if on_text is None:
                completion = read_completion(self._whole("POST", "/chat/completions", body))
            else:
                completion = self._streamed(body | {"stream": True}, told, on_text)
            if (
                top_logprobs
                and completion.text
                and not any(token.top for token in completion.tokens)
            ):
                raise _Failed("no_log_probs", "text without top_logprobs", NO_LOG_PROBS)
            return completion

        log_probs = f" with {top_logprobs} top_logprobs" if top_logprobs else ""
        return self._tried(once, f"a chat completion{log_probs}", told)

    def continuation(
        self, prompt: list[int], *, max_tokens: int, temperature: float, **options: Any
    ) -> Continuation:
        """What the model writes behind a prompt of token ids, with the log-probs of its tokens.
        `options` are sent as they are (seed, top_p, top_k, …). Raises EndpointError as `chat`."""
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "logprobs": 1,
            "return_token_ids": True,  # vLLM's own; others leave it out, and their text is read
        }

        def once() -> Continuation:
            written = read_continuation(self._whole("POST", "/completions", body | options))
            if written.text and not written.log_probs:
                raise _Failed("no_log_probs", "text without logprobs", NO_LOG_PROBS)
            return written

        return self._tried(once, "a completion with logprobs", [])

    def post(self, path: str, body: dict, asked: str) -> bytes:
        """What a path of the server's own answers; `asked` says in an error what was asked for.
        Raises EndpointError."""
        return self._tried(lambda: self._whole("POST", path, body), asked, [])

    def served_models(self) -> list[str]:
        """The names of the models that the endpoint serves. Raises EndpointError."""

        def once() -> list[str]:
            listed = json_object_of(self._whole("GET", "/models", None)).get("data")
            if not isinstance(listed, list):
                raise Unreadable("no list of models")
            names = [entry.get("id") for entry in listed if isinstance(entry, dict)]
            return [whole_text(name) for name in names if isinstance(name, str)]

        return self._tried(once, "its models", [])

    def close(self) -> None:
        """Nothing is left to close: no connection outlives its call."""

    def _tried(self, once: Callable, asked: str, told: list[str]):
        """once(), again where its failure may pass and no text has been told yet. Raises
        NobodyWaits before a call that nobody waits for."""
        attempt = 0
        while True:
            check_wanted()
            try:
                return once()
            except _Failed as error:
                failed = error
            except Unreadable as error:
                failed = _Failed("rubbish", error.what, NO_ENDPOINT, error.said)
            except BrokenOff:
                failed = _Failed("unreachable", "it broke off in mid-answer", "see its own log")
            if failed.kind not in TRANSIENT or told or attempt >= self.retries:
                break
            backoff = min(0.25 * 2**attempt, MAX_WAIT_SECONDS) * random.uniform(0.5, 1.0)
            time.sleep(max(backoff, min(failed.wait_seconds, MAX_WAIT_SECONDS)))
            attempt += 1
        tries = f" (after {attempt + 1} attempts)" if attempt else ""
        model = f" of model {self.model!r}" if self.model else ""
        got = f"{self.base_url}: asked for {asked}{model}, and got {failed.came_back}"
        said = f" ({self._shown(failed.said)})" if failed.said else ""
        raise EndpointError(
            f"{got}{said}{tries}; {failed.remedy}", failed.kind, f"{got}{tries}; {failed.remedy}"
        )

    def _whole(self, method: str, path: str, body: dict | None) -> bytes:
        return self._without_key(b"".join(self._chunks(method, path, body)))

    def _without_key(self, said: bytes) -> bytes:
        """What came back, where an endpoint echoes the key: it is for no answer and no log."""
        key = self.api_key.encode()
        return said.replace(key, b"[key]") if key else said

    def _streamed(self, body: dict, told: list[str], on_text: Callable[[str], None]) -> Completion:
        def tell(text: str) -> None:
            told.append(text)
            on_text(text)

        lines = _lines(self._chunks("POST", "/chat/completions", body))
        return read_stream(map(self._without_key, lines), tell)

    def _chunks(self, method: str, path: str, body: dict | None) -> Iterator[bytes]:
        """The bytes of a successful response as they come, within the deadline and the limit."""
        sent, num_bytes = None if body is None else json.dumps(body, allow_nan=False).encode(), 0
        try:
            with self._server.exchange(method, path, sent, self.timeout_seconds) as response:
                if response.status_code != 200:
                    raise self._refusal(response, bool(body and body.get("logprobs")))
                for chunk in response.iter_bytes():
                    num_bytes += len(chunk)
                    if num_bytes > MAX_ANSWER_BYTES:
                        limit = f"more than {MAX_ANSWER_BYTES >> 20} MiB"
                        raise _Failed("rubbish", limit, NO_ENDPOINT)
                    yield chunk
        except httpcore2.ConnectError as error:
            came_back = f"no connection ({shortened(str(error))})"
            remedy = "is it running, and is base_url right?"
            if self._server.proxy:
                remedy = (
                    f"does the environment's proxy {self._server.proxy} answer, and know this "
                    "host? name the host in no_proxy to go there without"
                )
            raise _Failed("unreachable", came_back, remedy) from None
        except httpcore2.TimeoutException:
            raise _too_slow(self.timeout_seconds) from None
        except httpx2.DecodingError as error:
            what = "a body that is not encoded as it says"
            raise _Failed("rubbish", what, "see its own log", str(error)) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError) as error:
            what = "a connection that broke off"
            raise _Failed("unreachable", what, "see its own log", str(error)) from None

    def _shown(self, said: bytes | str) -> str:
        said = said.encode("utf-8", "replace") if isinstance(said, str) else said
        return shortened(self._without_key(said))

    def _refusal(self, response: httpx2.Response, log_probs: bool) -> _Failed:
        """What a status other than 200 means."""
        said = b""
        for chunk in response.iter_bytes():
            said += chunk
            if len(said) > MAX_REFUSAL_BYTES:
                break
        status = response.status_code
        came_back = f"HTTP {status}"
        if status in (401, 403):
            return _Failed("key", came_back, "set the api_key that this endpoint knows", said)
        if status in (408, 425, 429) or status >= 500:
            wait = response.headers.get("retry-after", "")
            seconds = float(wait) if wait.isascii() and wait.isdigit() else 0.0
            return _Failed("busy", came_back, "raise retries, or ask less at once", said, seconds)
        if log_probs and b"logprob" in said.lower():
            return _Failed("no_log_probs", came_back, NO_LOG_PROBS, said)
        if status == 404:
            remedy = "does base_url end as it should (often in /v1), and does it serve this model?"
            return _Failed("request", came_back, remedy, said)
        return _Failed("request", came_back, "see what it says, and its own log", said)


NO_ENDPOINT = "is it an OpenAI-compatible endpoint?"
NO_LOG_PROBS = (
    "choose an endpoint that returns log-probs (vLLM, llama.cpp), or a smaller top_logprobs if it "
    "has a limit"
)


def _checked_address(base_url: str) -> str:
    """The address without a slash at its end. Raises UserError for what is none."""
    try:
        url = httpx2.URL(base_url.strip())
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    named = url.scheme in ("http", "https") and url.host and has_port(url)
    if not named or url.query or url.fragment:
        raise UserError(
            f"base_url: {base_url!r} is not an endpoint's address; give one like "
            "http://127.0.0.1:8000/v1"
        )
    return str(url).rstrip("/").removesuffix("/chat/completions")


def _too_slow(seconds: float) -> _Failed:
    remedy = "is it overloaded? raise timeout_seconds if it needs longer"
    return _Failed("timeout", f"no whole answer within {seconds:g} s", remedy)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        yield from lines
    if rest:
        yield rest
