"""What the server's tests share: the application in this process, over a fake endpoint."""

import asyncio
import contextlib
import dataclasses
import json

import httpx2
import pytest

from emergent_alignment.applications.zero_shot.answerer import ZeroShot
from emergent_alignment.applications.zero_shot.conversations import ConversationJournal
from emergent_alignment.applications.zero_shot.serving.app import make_app
from emergent_alignment.applications.zero_shot.serving.metrics import Metrics
from emergent_alignment.applications.zero_shot.serving.settings import ServeSettings
from emergent_alignment.applications.zero_shot.serving.workers import Workers
from emergent_alignment.conscience.conscience import Conscience
from emergent_alignment.generation.endpoint import Endpoint

SETTINGS = ServeSettings(
    max_request_bytes=4000,
    max_tokens=50,
    num_threads=4,
    batch_size=1,
    max_waiting=2,
    grace_seconds=2,
)


@dataclasses.dataclass
class Served:
    """The application, and its journal's folder."""

    app: object
    workers: Workers
    metrics: Metrics
    journal: object

    def ask(self, method: str, path: str, **options) -> httpx2.Response:
        async def asked():
            transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.request(method, path, **options)

        return asyncio.run(asked())

    def chat(self, content="Hi", *, body: bytes | None = None, **fields) -> httpx2.Response:
        asked = {"model": "m", "messages": [{"role": "user", "content": content}]} | fields
        body = json.dumps(asked).encode() if body is None else body
        return self.ask("POST", "/v1/chat/completions", content=body)


@pytest.fixture
def served(tmp_path):
    """served(backend or conscience, **changes of the settings) as a context."""

    @contextlib.contextmanager
    def start(backend, *, fail="closed", max_prompt=None, retries=0, **changes):
        conscience = backend
        if not isinstance(backend, Conscience):
            endpoint = Endpoint(backend.url, "m", retries=retries, timeout_seconds=0.5)
            conscience = Conscience(endpoint, fail=fail)
        settings = dataclasses.replace(SETTINGS, **changes)
        talker = ZeroShot(conscience, "m", None, max_prompt)
        journal, metrics = ConversationJournal(tmp_path / "journal"), Metrics()
        workers = Workers(talker, journal, metrics, settings)
        app = make_app(talker, workers, metrics, settings)
        yield Served(app, workers, metrics, tmp_path / "journal")
        workers.close(2)
        journal.close()

    return start
