"""The limits of the server."""

from dataclasses import dataclass

from ml_collections import ConfigDict


@dataclass(frozen=True)
class ServeSettings:
    """What is bounded, and how.

    max_request_bytes  of a body
    max_tokens         of an answer; what a request without a limit of its own gets
    num_threads        threads that answer
    batch_size         rows that one thread answers at once
    max_waiting        requests that may wait
    grace_seconds      for what runs when the process is asked to stop
    """

    max_request_bytes: int
    max_tokens: int
    num_threads: int
    batch_size: int
    max_waiting: int
    grace_seconds: float


def serve_settings(config: ConfigDict) -> ServeSettings:
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
    )
