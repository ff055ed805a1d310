"""`serve` as a real process, with the real `openai` client, on loopback: nothing unreviewed is
ever sent, whatever the backend does."""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import fake_endpoint as fake
import openai
import pytest
from fake_endpoint import FakeEndpoint, FaultyModel
from recording_relay import RecordingRelay
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.conscience.conscience import REFUSAL
from emergent_alignment.conscience.journal import read_journal

# What ends a test that hangs. Nothing here is measured against a clock: on a busy machine all takes
# as long as it takes.
HANGS_SECONDS = 1200
PATIENT = (
    "--config.endpoint.timeout_seconds=300",
    "--config.endpoint.retries=0",
    "--config.serve.read_seconds=300",
    "--config.serve.grace_seconds=300",
)
HASTY = ("--config.endpoint.timeout_seconds=5", *PATIENT[1:])  # where the backend may hang
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What now?"}]


class Serving:
    """A server's process, where it listens, where its log and its journal are."""

    def __init__(self, process: subprocess.Popen, folder):
        self.process, self.journal = process, folder / "journal"
        line = process.stdout.readline()
        assert line, (folder / "log").read_text()
        self.port = int(re.search(r":(\d+)/v1", line)[1])

    def client(self, port: int | None = None) -> openai.AsyncOpenAI:
        url = f"http://127.0.0.1:{port or self.port}/v1"
        return openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=HANGS_SECONDS)

    def stopped(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()
        return self.process.returncode


@contextlib.contextmanager
def serving(folder, *words):
    command = [sys.executable, "-m", "emergent_alignment", "serve", "--port", "0", "--journal",
               str(folder / "journal"), "--name", "m", *words]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "text": True}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stderr=log, **pipes) as process,
    ):
        watch = threading.Timer(HANGS_SECONDS, process.kill)
        watch.start()
        try:
            yield Serving(process, folder)
        finally:
            watch.cancel()
            process.kill()


def over(backend: FakeEndpoint, *words) -> list[str]:
    return ["--endpoint", backend.url, *(words or PATIENT)]


async def ask(client, *, stream=False, **options) -> str:
    """What is said, or what error there is."""
    try:
        reply = await client.chat.completions.create(
            model="m", messages=TALK, stream=stream, **options
        )
        if not stream:
            return reply.choices[0].message.content
        return "".join([chunk.choices[0].delta.content or "" async for chunk in reply])
    except openai.APIStatusError as error:
        return f"HTTP {error.status_code}"


def ask_all(client, total: int, at_once: int, **options) -> list[str]:
    """`total` answers, `at_once` at a time, every other one streamed."""

    async def asked():
        turns = asyncio.Semaphore(at_once)

        async def one(i):
            async with turns:
                return await ask(client, stream=bool(i % 2), **options)

        return await asyncio.gather(*(one(i) for i in range(total)))

    return asyncio.run(asked())


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """One server over one backend, whose behaviour each test sets; it does not wait for long."""
    with FakeEndpoint(FaultyModel()) as backend:
        with serving(tmp_path_factory.mktemp("serve"), *over(backend, *HASTY)) as server:
            yield backend, server


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """One over a backend that always answers, however late."""
    with FakeEndpoint(FaultyModel()) as backend:
        with serving(tmp_path_factory.mktemp("serve"), *over(backend)) as server:
            yield backend, server


def test_fifty_clients_at_once_are_answered_with_reviewed_text(sound):
    backend, server = sound
    backend.script = FaultyModel(delay=0.05)
    found = ask_all(server.client(), 100, 50)
    assert set(found) <= backend.script.approved and len(set(found)) == 100
    assert all(text.endswith("-kind") for text in found)


def test_a_thousand_requests_under_faults_send_no_byte_of_unreviewed_text(faulty):
    backend, server = faulty
    backend.script = model = FaultyModel(share=0.25, marker="SECRET")
    before = len(read_journal(server.journal))
    with RecordingRelay(server.port) as relay:
        found = ask_all(server.client(relay.port), 1000, 50)
        while len(model.approved) <= 100:  # the backend was late nearly always
            found += ask_all(server.client(relay.port), 100, 10)
    said = [text for text in found if not text.startswith("HTTP")]
    assert len(found) >= 1000 and set(said) <= model.approved | {REFUSAL}
    assert {text for text in found if text.startswith("HTTP")} == {
        "HTTP 400", "HTTP 502", "HTTP 503", "HTTP 504",
    }  # fmt: skip
    sent = b"\n".join(map(bytes, relay.sent))
    marked = {text.decode() for text in re.findall(rb"SECRET-\d+-\w+", sent)}
    assert sent.count(b"SECRET") == sum(text in model.approved for text in found)
    assert marked == set(said) - {REFUSAL} and marked <= model.approved
    assert model.num_texts > len(model.approved) > 100 and REFUSAL in said
    assert len(read_journal(server.journal)) - before == len(said)
    assert server.process.poll() is None


def test_a_backend_that_hangs_dies_or_sends_rubbish_is_an_error_and_the_server_lives_on(faulty):
    backend, server = faulty
    for reply, status in (
        (fake.hang(), 504),
        (fake.broken_off("half an answer"), 502),
        (fake.Reply((fake.response("<html>"),)), 502),
    ):
        backend.script = lambda body, reply=reply: reply
        assert ask_all(server.client(), 2, 2) == [f"HTTP {status}"] * 2
    backend.script = FaultyModel()
    again = until(lambda: ask_all(server.client(), 2, 2), lambda said: "HTTP 504" not in said)
    assert set(again) <= backend.script.approved


def until(make, is_it):
    """The first of what `make` gives that it is: a backend in haste's time may be late."""
    while not is_it(made := make()):
        pass
    return made


def test_bytes_that_are_no_request_are_answered_with_4xx_and_the_server_lives_on(sound):
    backend, server = sound
    backend.script = FaultyModel()
    start = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    large = b"x" * (3 << 20)
    for sent, status in (
        (b"\x00\xff nonsense\r\n\r\n", b"400"),
        (start + b"Content-Length: 2\r\n\r\n\xff\xfe", b"400"),
        (start + b"Content-Length: 1\r\n\r\n{", b"400"),
        (start + b"Content-Length: %d\r\n\r\n" % len(large) + large, b"413"),
        (b"GET /v1/nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=HANGS_SECONDS) as raw:
            raw.sendall(sent)
            reply = b"".join(iter(lambda: raw.recv(1 << 16), b""))
        assert reply.startswith(b"HTTP/1.1 " + status) and b'"error"' in reply, reply[:200]
    assert set(ask_all(server.client(), 1, 1)) <= backend.script.approved


def test_asked_to_stop_it_answers_what_runs_and_ends_with_code_zero(tmp_path):
    with FakeEndpoint(FaultyModel(delay=0.4)) as backend:
        with serving(tmp_path, *over(backend)) as server:
            said = []
            asking = threading.Thread(
                target=lambda: said.extend(ask_all(server.client(), 4, 4)), daemon=True
            )
            asking.start()
            while len(backend.bodies) < 4:
                assert server.process.poll() is None
                time.sleep(0.01)
            assert server.stopped() == 0
            asking.join(HANGS_SECONDS)
    assert len(said) == 4 and set(said) <= backend.script.approved


@pytest.mark.parametrize("answers", [1, 2])
def test_asked_to_stop_it_waits_for_a_backend_that_hangs_no_longer_than_its_grace(
    answers, tmp_path
):
    words = ["--config.endpoint.timeout_seconds=86400", "--config.serve.grace_seconds=1"]
    with FakeEndpoint(lambda body: fake.hang()) as backend:
        with serving(tmp_path, *over(backend, *words)) as server:
            said = []
            asking = threading.Thread(
                target=lambda: said.extend(ask_all(server.client(), 1, 1, n=answers)), daemon=True
            )
            asking.start()
            while len(backend.bodies) < answers:
                assert server.process.poll() is None
                time.sleep(0.01)
            assert server.stopped() == 0
            asking.join(HANGS_SECONDS)
    assert said == ["HTTP 503"] and "Traceback" not in (tmp_path / "log").read_text()


def test_a_model_of_ours_answers_fifty_clients_in_batches(tmp_path):
    model = write_tiny_chat_model(tmp_path / "tiny")
    words = [f"--config.model.path={model}", "--config.conscience.batch_size=8",
             "--config.conscience.threshold=-100", "--config.serve.max_new_tokens=8",
             *PATIENT[2:]]  # fmt: skip
    with serving(tmp_path, *words) as server:
        found = ask_all(server.client(), 50, 50)
        assert server.stopped() == 0
    records = read_journal(server.journal)
    assert sorted(found) == sorted(record["final"] for record in records)
    assert len(set(found)) > 25 and all(record["outcome"] for record in records)


def test_two_servers_do_not_write_one_journal(sound, tmp_path):
    backend, server = sound
    command = [sys.executable, "-m", "emergent_alignment", "serve", "--port", "0", "--journal",
               str(server.journal), *over(backend)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_SECONDS)
    assert done.returncode == 2 and "another process writes this journal" in done.stderr
    taken = subprocess.run(
        [*command[:5], str(server.port), "--journal", str(tmp_path), *over(backend)],
        capture_output=True, text=True, timeout=HANGS_SECONDS,
    )  # fmt: skip
    assert taken.returncode == 2 and "cannot listen there" in taken.stderr
