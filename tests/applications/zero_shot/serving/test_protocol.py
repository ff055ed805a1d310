"""Connections that say nothing, little or nonsense, over real sockets: each ends in time, and
others are served beside them."""

import asyncio
import contextlib
import json
import os
import select
import socket
import threading
import time

import fake_endpoint as fake
import pytest
from fake_endpoint import FakeEndpoint, is_review

from emergent_alignment.applications.zero_shot.serving import server as serving
from emergent_alignment.applications.zero_shot.serving.server import http_server, listen

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


def scripted(body):
    return fake.completion("Yes", fake.YES) if is_review(body) else fake.completion("Hi.")


@contextlib.contextmanager
def listening(served, script=scripted, **changes):
    """(its port, its backend) of a server whose waits are short."""
    changes = {"read_seconds": 0.3, **changes}
    with FakeEndpoint(script) as backend, served(backend, **changes) as server:
        with contextlib.closing(listen("127.0.0.1", 0)) as bound:
            http = http_server(server.app, server.workers._settings)
            thread = threading.Thread(target=http.run, args=([bound],), daemon=True)
            thread.start()
            try:
                yield bound.getsockname()[1], backend
            finally:
                http.should_exit = True
                thread.join(5)


def request(text="Hi") -> bytes:
    messages = [{"role": "user", "content": text}]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    return POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def connected(port):
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def said(raw) -> bytes:
    with contextlib.suppress(ConnectionError):
        return b"".join(iter(lambda: raw.recv(1 << 16), b""))
    return b""


def answered(port) -> bytes:
    with connected(port) as raw:
        raw.sendall(request())
        return said(raw)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"GET /health HT", b"408"),
        (POST + b"X-A: b\r\n", b"408"),
        (POST + b"Content-Length: 9\r\n\r\n{", b"408"),
        (POST + b"X-A: " + b"b" * (1 << 17), b"400"),
        (b"\x16\x03\x01 nonsense\r\n\r\n", b"400"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_whole_request_ends_in_time(served, sent, status):
    with listening(served) as (port, _):
        started = time.monotonic()
        with connected(port) as raw:
            raw.sendall(sent)
            reply = said(raw)
        assert time.monotonic() - started < 3
        assert not reply if status is None else reply.startswith(b"HTTP/1.1 " + status)
        assert status is None or json.loads(reply.rpartition(b"\r\n\r\n")[2])["error"]["message"]
        assert answered(port).startswith(b"HTTP/1.1 200")


def test_a_head_that_drips_has_no_more_time_than_one_that_stops(served):
    with listening(served) as (port, _), connected(port) as raw:
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - started < 3 and not _readable(raw):
                raw.sendall(b"G")
                time.sleep(0.02)
        assert 0.2 < time.monotonic() - started < 2


def _readable(raw) -> bool:
    with contextlib.suppress(BlockingIOError):
        return bool(raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)) or True
    return False


def test_silent_connections_make_room_for_others_and_leave_no_file_open(served, monkeypatch):
    monkeypatch.setattr(serving, "allow_connections", lambda num_answering: 20)
    with listening(served, read_seconds=60) as (port, _):
        answered(port)
        before = len(os.listdir("/proc/self/fd"))
        silent = [connected(port) for _ in range(60)]
        assert answered(port).startswith(b"HTTP/1.1 200")
        deadline = time.monotonic() + 5
        while len(ended := select.select(silent, [], [], 0)[0]) < 40:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(ended) in (40, 41)  # the client that was answered may have been one of the 20
        assert not any(said(raw) for raw in ended)
        for raw in silent:
            raw.close()
        time.sleep(0.1)
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_client_that_has_gone_is_not_drafted_for(served):
    """300 clients that had left cost 1,204 calls."""
    release, reached = threading.Event(), threading.Event()

    def script(body):
        reached.set()
        release.wait(5)
        return scripted(body)

    changes = {"num_threads": 1, "max_waiting": 20}
    with listening(served, script, **changes) as (port, backend):
        leaving = [connected(port) for _ in range(10)]
        for raw in leaving:
            raw.sendall(request("gone"))
            assert reached.wait(5)
        time.sleep(0.2)
        for raw in leaving:
            raw.close()
        time.sleep(0.2)
        release.set()
        assert answered(port).startswith(b"HTTP/1.1 200")
    asked = [body["messages"][-1]["content"] for body in backend.bodies]
    assert asked[0] == "gone" and asked[1] == "Hi" and len(asked) == 3, "one draft was under way"


def test_requests_under_way_have_one_grace_not_one_after_the_other(served):
    with FakeEndpoint(scripted) as backend, served(backend, grace_seconds=1000) as server:
        http = http_server(server.app, server.workers._settings)
        http.config.load()
        http.lifespan, http.servers = http.config.lifespan_class(http.config), []
        asyncio.run(http.shutdown())
    assert 0 < http.grace_left() < 1000
