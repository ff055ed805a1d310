"""The server's process: its socket, its life, its end. SIGTERM and SIGINT let what runs end."""

import contextlib
import json
import signal
import socket

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from emergent_alignment.applications.zero_shot.answerer import ZeroShot
from emergent_alignment.applications.zero_shot.conversations import ConversationJournal
from emergent_alignment.applications.zero_shot.serving.app import make_app
from emergent_alignment.applications.zero_shot.serving.metrics import Metrics
from emergent_alignment.applications.zero_shot.serving.replies import error_form
from emergent_alignment.applications.zero_shot.serving.settings import ServeSettings
from emergent_alignment.applications.zero_shot.serving.workers import Workers
from emergent_alignment.errors import UserError

MAX_HEAD_BYTES = 64 << 10
BACKLOG = 2048  # connections that wait to be accepted


class _Protocol(H11Protocol):
    """uvicorn's HTTP, but that what is no HTTP is answered in the API's form, too."""

    def send_400_response(self, msg: str) -> None:
        body = json.dumps(error_form(msg, "invalid_request_error")).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, so that who connects before the server runs waits for it;
    port 0 takes a free one. Raises UserError where none can be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        bound.close()
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({error}); choose others"
        ) from None
    return bound


def serve(
    talker: ZeroShot,
    bound: socket.socket,
    journal: ConversationJournal,
    settings: ServeSettings,
) -> None:
    """Serve until the process is asked to stop, and let what runs end."""
    metrics = Metrics()
    workers = Workers(talker, journal, metrics, settings)
    config = uvicorn.Config(
        make_app(talker, workers, metrics, settings),
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.grace_seconds),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    # uvicorn raises the signal again when it has shut down; for us that is no failure.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[bound])
    workers.close(settings.grace_seconds)
    journal.close()
