"""The limits of the server."""

from dataclasses import dataclass

from emergent_alignment.runs.config import RunConfig
from emergent_alignment.settings import Section, setting


@dataclass(frozen=True)
class ServeSection(Section):
    """`serve`: what is bounded."""

    max_request_bytes: int = setting(1 << 20, "Larger bodies are refused.", more_than=0)
    max_new_tokens: int = setting(
        512,
        "Tokens of the longest answer, and what a request without max_tokens gets.",
        more_than=0,
    )
    concurrency: int = setting(64, "Requests that an endpoint is asked at once.", more_than=0)
    max_waiting: int = setting(256, "Requests that may wait; more get 429.", at_least=0)
    read_seconds: float = setting(
        20.0, "How long a request's head, and its body, may take to come.", more_than=0
    )
    grace_seconds: float = setting(
        30.0,
        "How long requests under way may take when the server is asked to stop.",
        more_than=0,
        at_most=86400,
    )


@dataclass(frozen=True)
class ServeConfig(RunConfig):
    """The settings of answering, with those of the server."""

    serve: ServeSection = ServeSection()


@dataclass(frozen=True)
class ServeSettings:
    """What is bounded, and how.

    max_request_bytes  of a body
    max_tokens         of an answer; what a request without a limit of its own gets
    num_threads        threads that answer
    batch_size         rows that one thread answers at once
    max_waiting        requests that may wait
    grace_seconds      for what runs when the process is asked to stop
    read_seconds       for a request's head, and for its body, to come
    """

    max_request_bytes: int
    max_tokens: int
    num_threads: int
    batch_size: int
    max_waiting: int
    grace_seconds: float
    read_seconds: float = 20.0


def serve_settings(config: ServeConfig) -> ServeSettings:
    """An endpoint is asked by many threads, one request each; a model of ours answers in one
    thread, a batch at once."""
    serve, over_endpoint = config.serve, bool(config.endpoint.base_url)
    return ServeSettings(
        serve.max_request_bytes,
        serve.max_new_tokens,
        serve.concurrency if over_endpoint else 1,
        1 if over_endpoint else config.conscience.batch_size,
        serve.max_waiting,
        serve.grace_seconds,
        serve.read_seconds,
    )
