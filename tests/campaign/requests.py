"""`serve` as a real process, before a backend that does what none should, and clients that do.

Each text that the backend writes is marked with its request. What a client reads may hold no mark
but that of a text for which the backend has sent a whole Yes, nor the backend's key.
"""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import fake_endpoint as fake
from fake_endpoint import FakeEndpoint

from campaign import backends
from campaign.trial import Trial
from emergent_alignment.conscience.conscience import REFUSAL

TRIALS = 1000
AT_ONCE = 16
READ_SECONDS, CALL_SECONDS = 1.0, 1.0
MOST_SECONDS = 600.0  # nothing takes so long, on a busy machine either; what does hangs
GRACE_SECONDS = 5.0
GROWTH_MIB, GROWTH_FILES = 64, 8
# The C library keeps much of what threads free for them, which is no leak. Here it gives it back,
# so that the memory of the process is what is held.
FREES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


@dataclass
class Served:
    """A server's process, its port, its backend, and where its log and journal are."""

    process: subprocess.Popen
    port: int
    backend: FakeEndpoint
    folder: Path
    log: Path = field(init=False)

    def __post_init__(self):
        self.log = self.folder / "log"

    def ask(self, sent: bytes, *, slowly: float = 0.0) -> bytes:
        """All that comes back; `slowly`, a byte in so many seconds."""
        until = time.monotonic() + MOST_SECONDS
        with socket.create_connection(("127.0.0.1", self.port), timeout=MOST_SECONDS) as raw:
            with contextlib.suppress(ConnectionError):
                for byte in sent if slowly else ():
                    raw.sendall(bytes([byte]))
                    time.sleep(slowly)
                if not slowly:
                    raw.sendall(sent)
            said = b""
            with contextlib.suppress(ConnectionError):
                while chunk := raw.recv(1 << 16):
                    said += chunk
                    raw.settimeout(max(until - time.monotonic(), 0.01))
            return said

    def size(self) -> tuple[float, int]:
        """(MiB of memory, open files) of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(resident[1]) / 1024, len(os.listdir(f"/proc/{self.process.pid}/fd"))


def trials(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """`count` requests of all kinds, in an order drawn from the seed, and then what is left."""
    draw = random.Random(seed)
    cases = [(kind, number) for number, kind in zip(range(count), _turns(draw))]
    for answers in (1, 2):
        with FakeEndpoint(lambda body: fake.hang()) as backend:
            with _serving(backend, folder / f"stopped-{answers}", 86400) as served:
                yield Trial("requests", "asked to stop", *_stopped(served, answers))
    script = backends.Script()
    with FakeEndpoint(script) as backend, _serving(backend, folder) as served:
        for number in range(AT_ONCE):
            _asked(served, script, "review: whole", f"first{number}")
        before = served.size()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            yield from threads.map(lambda case: _tried(served, script, *case), cases)
        yield from _left(served, before, script)


def _turns(draw: random.Random) -> Iterator[str]:
    """All kinds, again and again, each time in another order."""
    kinds = [*backends.CASES, *CLIENTS]
    while True:
        yield from draw.sample(kinds, len(kinds))


@contextlib.contextmanager
def _serving(
    backend: FakeEndpoint, folder: Path, call_seconds: float = CALL_SECONDS
) -> Iterator[Served]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "emergent_alignment", "serve", "--port", "0", "--name", "m"),
        *("--endpoint", backend.url, "--journal", str(folder / "journal")),
        f"--config.endpoint.timeout_seconds={call_seconds}",
        "--config.endpoint.retries=0",
        f"--config.serve.read_seconds={READ_SECONDS}",
        f"--config.serve.grace_seconds={GRACE_SECONDS}",
    ]
    environment = os.environ | FREES | {"OPENAI_API_KEY": backends.KEY}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            port = int(re.search(r":(\d+)/v1", process.stdout.readline())[1])
            yield Served(process, port, backend, folder)
        finally:
            process.kill()


def _tried(served: Served, script: backends.Script, kind: str, number: int) -> Trial:
    started = time.monotonic()
    try:
        made = CLIENTS.get(kind, _asked)(served, script, kind, str(number))
    except OSError as error:  # a time out as well
        made = "fault", f"{type(error).__name__}: {error}"
    if made[0] in ("right", "refused") and time.monotonic() - started > MOST_SECONDS:
        made = "fault", f"took {time.monotonic() - started:.0f} s"
    if kind in CLIENTS:
        return Trial("requests", GROUPS.get(kind, kind), made[0], f"{kind}: {made[1]}")
    return Trial("requests", backends.group_of(kind), made[0], f"{kind}: {made[1]}")


def _asked(served: Served, script: backends.Script, kind: str, number: str) -> tuple[str, str]:
    return _judged(script, number, served.ask(request(kind, number)))


def request(kind: str, number: str, answers: int = 1) -> bytes:
    """A whole request that says which case it is."""
    said = [{"role": "user", "content": f"CASE<{kind}|{number}>"}]
    asked = {"model": "m", "messages": said, "stream": len(number) % 2 == 0, "max_tokens": 20}
    asked["n"] = answers
    body = json.dumps(asked).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _judged(script: backends.Script, number: str, reply: bytes) -> tuple[str, str]:
    """What a reply comes to."""
    marks = set(re.findall(r"(?:DRAFT|FIXED)-\w+", reply.decode("utf-8", "replace")))
    foreign = {mark for mark in marks if mark.split("-")[1] != number}
    if foreign or marks - script.approved or backends.KEY.encode() in reply:
        return "silent", f"was sent {sorted(marks)}, or the key: {reply[-200:]!r}"
    head, _, body = reply.partition(b"\r\n\r\n")
    status = head[9:12].decode()
    if status == "200" and (marks or REFUSAL.encode() in body):
        return ("right", "") if marks else ("refused", "")
    try:
        error = json.loads(body)["error"]
        clear = isinstance(error["message"], str) and status != "500" and status[0] in "45"
    except (ValueError, KeyError, TypeError):
        clear = False
    return ("refused", "") if clear else ("fault", repr(reply[:300]))


def _leaves(served, script, kind, number) -> tuple[str, str]:
    """Goes at once: at most the call that was under way is made."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=MOST_SECONDS) as raw:
        raw.sendall(request("draft: slow", number))
        time.sleep(0.05)
    time.sleep(1.0)
    calls = script.calls[number]
    return ("right", "") if calls <= 1 else ("fault", f"{calls} calls for nobody")


def _sends(sent: bytes, slowly: float = 0.0) -> Callable:
    """A client that sends what is no whole request, and reads what comes."""

    def client(served, script, kind, number) -> tuple[str, str]:
        reply = served.ask(sent, slowly=slowly)
        if not sent:
            return ("refused", "") if not reply else ("fault", repr(reply[:300]))
        return _judged(script, number, reply)

    return client


CLIENTS: dict[str, Callable] = {
    "client: leaves": _leaves,
    "client: says nothing": _sends(b""),
    "client: drips its head": _sends(b"GET /health HTTP/1.1\r\nX-A: " + b"b" * 60, 0.05),
    "client: drips its body": _sends(HEAD + b"Content-Length: 900\r\n\r\n" + b" " * 60, 0.01),
    "client: head too large": _sends(HEAD + b"X-A: " + b"b" * (200 << 10)),
    "client: body too large": _sends(HEAD + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3000000),
    "client: no HTTP": _sends(b"\x16\x03\x01\x02 hello\r\n\r\n"),
    "client: broken chunks": _sends(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "client: two lengths": _sends(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
    "client: no JSON": _sends(HEAD + b"Content-Length: 1\r\n\r\n{"),
    "client: deep JSON": _sends(HEAD + b"Content-Length: 100000\r\n\r\n" + b"[" * 100_000),
}
GROUPS = {kind: "client: no request of the API" for kind in list(CLIENTS)[4:]}
GROUPS |= {kind: "client: slow or silent" for kind in list(CLIENTS)[1:4]}


def _left(served: Served, before: tuple[float, int], script) -> Iterator[Trial]:
    """What all of it has left behind."""
    outcome = _asked(served, script, "review: whole", "last")
    yield Trial("requests", "afterwards", outcome[0], f"is served: {outcome[1]}")
    time.sleep(3 * READ_SECONDS)
    memory, files = (now - then for now, then in zip(served.size(), before))
    for case, grown, most in (("memory", memory, GROWTH_MIB), ("files", files, GROWTH_FILES)):
        fault = "fault" if grown > most else "right"
        yield Trial("requests", "afterwards", fault, f"{case} have grown by {grown:.0f}")
    counted = served.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    yield Trial("requests", "afterwards", *_ended(served))
    told = counted.decode() + served.log.read_text("utf-8", "replace")
    marks = re.findall(r"(?:DRAFT|FIXED)-\w+|Traceback", told) + [backends.KEY] * (
        backends.KEY in told
    )
    yield Trial(
        "requests", "afterwards", "fault" if marks else "right", f"log and metrics: {marks[:5]}"
    )


def _stopped(served: Served, answers: int) -> tuple[str, str]:
    """Asked to stop while the backend hangs: who waits is told, and the server ends."""
    with ThreadPoolExecutor(1) as thread:
        reply = thread.submit(served.ask, request("draft: hangs", "0", answers))
        while len(served.backend.bodies) < answers and not reply.done():
            time.sleep(0.01)
        outcome = _ended(served)
        if outcome[0] == "fault":
            served.process.kill()  # else nobody ends the client
            return outcome
        told = reply.result()
    if "Traceback" in served.log.read_text("utf-8", "replace"):
        return "fault", "a traceback in the log"
    return _judged(backends.Script(), "0", told)


def _ended(served: Served) -> tuple[str, str]:
    """What SIGTERM comes to."""
    served.process.send_signal(signal.SIGTERM)
    try:
        code = served.process.wait(MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return "fault", "does not end"
    return ("fault" if code else "right"), f"ends with {code}"
