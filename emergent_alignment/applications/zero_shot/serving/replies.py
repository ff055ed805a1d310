"""What the server sends, in the forms of the OpenAI API. Only reviewed text comes in here."""

import json
import time
from collections.abc import Iterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from emergent_alignment.applications.zero_shot.serving.requests import ChatRequest, RequestError
from emergent_alignment.conscience.conscience import Response as Answered

ERROR_TYPES = {429: "rate_limit_error", 404: "not_found_error"}


def error_reply(error: RequestError, headers: dict[str, str] | None = None) -> Response:
    """An error as the API has it."""
    kind = "api_error" if error.status >= 500 else "invalid_request_error"
    return JSONResponse(
        error_form(str(error), ERROR_TYPES.get(error.status, kind), error.param, error.code),
        error.status,
        headers=headers,
    )


def error_form(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict:
    """The JSON of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def chat_reply(name: str, model: str, request: ChatRequest, answers: list[Answered]) -> Response:
    """The answers to a request: at once, or as a stream that begins after the review."""
    outcomes = ",".join(answer.reviewed.outcome for answer in answers)
    headers = {"X-Conscience": outcomes, "X-Request-Id": name}
    common = {"id": f"chatcmpl-{name}", "created": int(time.time()), "model": model}
    if request.stream:
        events = _events(common | {"object": "chat.completion.chunk"}, request, answers)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.final, "refusal": None},
            "logprobs": _log_probs(request, answer),
            "finish_reason": _finish_reason(answer),
        }
        for index, answer in enumerate(answers)
    ]
    whole = {"object": "chat.completion", "choices": choices, "usage": _usage(answers)}
    return JSONResponse(common | whole, headers=headers)


def models_reply(model: str) -> dict:
    """The list of the one model that is served."""
    return {"object": "list", "data": [model_form(model)]}


def model_form(model: str) -> dict:
    """One model as the API has it."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "emergent-alignment"}


def _events(common: dict, request: ChatRequest, answers: list[Answered]) -> Iterator[str]:
    usage = {"usage": None} if request.include_usage else {}

    def event(index: int, delta: dict, finish_reason: str | None = None, told=None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish_reason}
        return _line(common | {"choices": [choice]} | usage)

    for index, answer in enumerate(answers):
        yield event(index, {"role": "assistant", "content": ""})
        yield event(index, {"content": answer.final}, told=_log_probs(request, answer))
        yield event(index, {}, _finish_reason(answer))
    if request.include_usage:
        yield _line(common | {"choices": [], "usage": _usage(answers)})
    yield "data: [DONE]\n\n"


def _line(document: dict[str, Any]) -> str:
    """An event. Letters at which some clients end lines (U+2028) are escaped, as all others."""
    return f"data: {json.dumps(document, allow_nan=False)}\n\n"


def _finish_reason(answer: Answered) -> str:
    if answer.refused:
        return "content_filter"
    return "stop" if answer.ended else "length"


def _log_probs(request: ChatRequest, answer: Answered) -> dict | None:
    """Of the tokens that are said, where they are known; no other tokens are read beside them."""
    if not request.log_probs or not answer.tokens:
        return None
    content = [
        {"token": token, "logprob": log_prob, "bytes": list(token.encode()), "top_logprobs": []}
        for token, log_prob in answer.tokens
    ]
    return {"content": content, "refusal": None}


def _usage(answers: list[Answered]) -> dict[str, int]:
    """Tokens of the drafts; what reviews and corrections cost comes on top."""
    prompt = answers[0].prompt_tokens
    completion = sum(answer.completion_tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
