"""The OpenAI-compatible server: routes, limits, and the errors that clients see.

What a backend said when it failed is for neither clients nor logs: it may hold a draft.
"""

import asyncio
import contextlib
import logging
import secrets
import time
import traceback
from concurrent.futures import Future

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emergent_alignment.applications.zero_shot.answerer import ZeroShot
from emergent_alignment.applications.zero_shot.serving.metrics import Metrics
from emergent_alignment.applications.zero_shot.serving.replies import (
    chat_reply,
    error_reply,
    model_form,
    models_reply,
)
from emergent_alignment.applications.zero_shot.serving.requests import (
    ChatRequest,
    RequestError,
    parse_request,
)
from emergent_alignment.applications.zero_shot.serving.settings import ServeSettings
from emergent_alignment.applications.zero_shot.serving.workers import QueueFull, Workers
from emergent_alignment.conscience.conscience import Response as Answered
from emergent_alignment.errors import UserError
from emergent_alignment.generation.endpoint import EndpointError

RETRY_AFTER_SECONDS = 1
# How a draft that failed is answered: status and words by EndpointError.kind.
FAILURES = {
    "timeout": (504, "took too long"),
    "busy": (503, "is overloaded"),
    "request": (400, "refused this request"),
    "unreachable": (502, "could not be reached, or broke off"),
    "rubbish": (502, "sent no answer that can be read"),
    "key": (502, "does not accept this server's key"),
    "no_log_probs": (502, "sent no answer that can be read"),
}
CLIENT_LEFT = 499  # for the count of requests alone: nobody reads it
STOPPING = RequestError("this server stops, and this request took too long; ask again", status=503)
OUR_FAULT = RequestError("this server failed; nothing was answered", status=500)
log = logging.getLogger("emergent_alignment.serve")


def make_app(
    talker: ZeroShot, workers: Workers, metrics: Metrics, settings: ServeSettings
) -> Starlette:
    """The ASGI application."""

    async def completions(request: Request) -> Response:
        name, status = secrets.token_hex(12), 500
        try:
            reply = await _complete(request, name, talker, workers, metrics, settings)
            status = reply.status_code
        except RequestError as error:
            reply, status = error_reply(error, _headers(error, name)), error.status
        except ClientDisconnect:
            reply, status = Response(status_code=CLIENT_LEFT), CLIENT_LEFT
        except asyncio.CancelledError:  # the time for what ran when the server was to stop is over
            reply, status = error_reply(STOPPING, _headers(STOPPING, name)), STOPPING.status
        except Exception as error:  # a bug of ours; its message may hold anybody's text
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("request %s: %s\n%s", name, type(error).__name__, where)
            reply = error_reply(OUR_FAULT)
        finally:
            metrics.requests.labels(str(status)).inc()
        return reply

    async def models(request: Request) -> Response:
        return JSONResponse(models_reply(talker.name))

    async def model(request: Request) -> Response:
        if request.path_params["name"] != talker.name:
            raise HTTPException(404, "this model is not served here")
        return JSONResponse(model_form(talker.name))

    async def health(request: Request) -> Response:
        alive = workers.alive()
        status = "ok" if alive else "stopping"
        return JSONResponse({"status": status, "model": talker.name}, 200 if alive else 503)

    async def counted(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(
        routes=[
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/health", health),
            Route("/metrics", counted),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _our_fault},
    )


async def _complete(
    request: Request,
    name: str,
    talker: ZeroShot,
    workers: Workers,
    metrics: Metrics,
    settings: ServeSettings,
) -> Response:
    body = await _read_body(request, settings.max_request_bytes, settings.read_seconds)
    started = time.monotonic()
    asked = await asyncio.to_thread(_parse, body, talker, settings.max_tokens)
    try:
        answers = await _answers(request, workers, workers.submit(asked, name))
    except QueueFull:
        raise RequestError("too many requests wait; try again", status=429) from None
    except EndpointError as error:
        log.warning("request %s: %s", name, error.unquoted)
        metrics.failures.labels(error.kind).inc()
        status, words = FAILURES[error.kind]
        raise RequestError(
            f"the model behind this server {words}; its operator finds more under request {name}",
            status=status,
        ) from None
    metrics.seconds.observe(time.monotonic() - started)
    return chat_reply(name, talker.name, asked, answers)


async def _answers(request: Request, workers: Workers, answers: Future) -> list[Answered]:
    """The answers as they come, for as long as the client waits: ClientDisconnect where it has
    gone."""
    made = asyncio.ensure_future(asyncio.wrap_future(answers))
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((made, gone), return_when=asyncio.FIRST_COMPLETED)
        if not made.done():
            raise ClientDisconnect
        return made.result()
    finally:
        gone.cancel()
        if not made.done():
            made.cancel()
            workers.leave(answers)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _parse(body: bytes, talker: ZeroShot, max_tokens: int) -> ChatRequest:
    asked = parse_request(body, model=talker.name, max_tokens=max_tokens)
    if asked.log_probs and not talker.knows_tokens:
        raise RequestError(
            "logprobs are not known here: the model is another endpoint's; leave it out",
            param="logprobs",
            code="unsupported_parameter",
        )
    try:
        talker.check_length(asked.messages)
    except UserError as error:
        raise RequestError(str(error), param="messages") from None
    return asked


async def _read_body(request: Request, limit: int, seconds: float) -> bytes:
    """The body, no longer than the limit. What is too long is not kept, but read on for a
    while, so that the client gets to read the answer."""
    body, size = bytearray(), 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    body += chunk
                elif size > 16 * limit:
                    break
            if size <= limit:
                return bytes(body)
    if size <= limit:
        raise RequestError(f"no whole body came within {seconds:g} s", status=408)
    raise RequestError(f"the body is larger than {limit} bytes", status=413)


def _headers(error: RequestError, name: str) -> dict[str, str]:
    headers = {"X-Request-Id": name}
    if error.status in (413, 408):
        headers["Connection"] = "close"
    if error.status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return headers


async def _http_error(request: Request, error: HTTPException) -> Response:
    """No such path, or another method than the path has."""
    words = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return error_reply(RequestError(words, status=error.status_code), dict(error.headers or {}))


async def _our_fault(request: Request, error: Exception) -> Response:
    """A bug of ours: its trace goes to the log, and nothing of it to the client."""
    return error_reply(OUR_FAULT)
