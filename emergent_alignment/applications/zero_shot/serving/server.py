"""The server's process: its socket, its life, its end. SIGTERM and SIGINT let what runs end."""

import contextlib
import signal
import socket
import time

import uvicorn
from starlette.applications import Starlette

from emergent_alignment.applications.zero_shot.answerer import ZeroShot
from emergent_alignment.applications.zero_shot.conversations import ConversationJournal
from emergent_alignment.applications.zero_shot.serving.app import make_app
from emergent_alignment.applications.zero_shot.serving.metrics import Metrics
from emergent_alignment.applications.zero_shot.serving.protocol import (
    MAX_HEAD_BYTES,
    Protocol,
    allow_connections,
)
from emergent_alignment.applications.zero_shot.serving.settings import ServeSettings
from emergent_alignment.applications.zero_shot.serving.workers import Workers
from emergent_alignment.errors import UserError

BACKLOG = 2048  # connections that wait to be accepted
UNREAD_SECONDS = 60  # a client that does not read its answer for so long is given up


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, so that who connects before the server runs waits for it;
    port 0 takes a free one. Raises UserError where none can be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; its connections inherit it
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000)
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
    server = http_server(make_app(talker, workers, metrics, settings), settings)
    # uvicorn raises the signal again when it has shut down; for us that is no failure.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[bound])
    workers.close(server.grace_left())
    journal.close()


class StoppingServer(uvicorn.Server):
    """uvicorn's, which knows since when it is asked to stop."""

    _asked = 0.0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._asked = time.monotonic()
        await super().shutdown(sockets)

    def grace_left(self) -> float:
        """Of the time for what runs, what is left."""
        most = self.config.timeout_graceful_shutdown or 0
        return max(self._asked + most - time.monotonic(), 0)


def http_server(app: Starlette, settings: ServeSettings) -> StoppingServer:
    """uvicorn as it serves here."""
    limits = {
        "max_connections": allow_connections(settings.num_threads),
        "head_seconds": settings.read_seconds,
    }
    return StoppingServer(
        uvicorn.Config(
            app,
            http=type("LimitedProtocol", (Protocol,), limits),
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.grace_seconds),
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
    )
