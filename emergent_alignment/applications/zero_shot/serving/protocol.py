"""uvicorn's HTTP, with what it leaves open: how long a head may take, how many connections may
wait, and errors in the API's form."""

import json
import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from emergent_alignment.applications.zero_shot.serving.replies import error_form

MAX_HEAD_BYTES = 64 << 10
LINGER_SECONDS = 1.0  # so long a client that is refused may send on, and read why
LEAST_CONNECTIONS = 64
# Connections that come together are accepted in any order: what they sent is read before one ends.
ROOM_SECONDS = 0.05


class Protocol(H11Protocol):
    """One connection of a client.

    A head that is not whole in time ends its connection, with 408 where it has begun. Where there
    are too many connections, those that have waited longest without a request make room.
    """

    max_connections = LEAST_CONNECTIONS
    head_seconds = 20.0
    _overdue = None
    _refused = False
    _since = 0.0

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._expect_head()
        if len(self.connections) > self.max_connections:
            self.loop.call_later(ROOM_SECONDS, self._make_room)

    def connection_lost(self, exc) -> None:
        self._expect_no_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self.is_waiting and self._overdue is None:
            self._expect_head()
        super().data_received(data)
        if not self.is_waiting:
            self._expect_no_head()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, b"Bad Request", msg)

    def _make_room(self) -> None:
        open_ones = [one for one in self.connections if not one.transport.is_closing()]
        waiting = sorted((one for one in open_ones if one.is_waiting), key=lambda one: one._since)
        for one in waiting[: max(len(open_ones) - self.max_connections, 0)]:
            one.transport.abort()

    def _expect_head(self) -> None:
        self._since = self.loop.time()
        self._overdue = self.loop.call_later(self.head_seconds, self._head_is_overdue)

    def _expect_no_head(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _head_is_overdue(self) -> None:
        self._overdue = None
        if self.conn.trailing_data[0]:
            self._refuse(
                408, b"Request Timeout", f"no whole head came within {self.head_seconds:g} s"
            )
        else:
            self.transport.close()

    def _refuse(self, status: int, reason: bytes, msg: str) -> None:
        """Answer what is no HTTP, where nothing else is being answered, and end the connection."""
        body = json.dumps(error_form(msg, "invalid_request_error")).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        self._expect_no_head()
        if self._refused or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        self._refused = True
        for event in (
            h11.Response(status_code=status, headers=headers, reason=reason),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        # Bytes that were not read would make the system throw the answer away.
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def allow_connections(num_answering: int) -> int:
    """How many connections there may be: half of the files that this process may open, of which
    as many as the system lets it. The rest is for what is asked of an endpoint and written."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 16 if most == resource.RLIM_INFINITY else min(most, 1 << 16)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return max(min(wanted // 2, wanted - 4 * num_answering), LEAST_CONNECTIONS)
