"""The server in this process: reviewed answers in the API's form, and 4xx for everything else."""

import asyncio
import json
import threading

import fake_endpoint as fake
import httpx2
import pytest
from fake_endpoint import FakeEndpoint, Reply, is_review

from emergent_alignment.conscience.conscience import REFUSAL
from emergent_alignment.conscience.journal import read_journal

MARKER = "UNREVIEWED"


def scripted(body) -> Reply:
    """Drafts carry the marker and echo; harm is flagged; a rewrite has no marker."""
    said = body["messages"][-1]["content"]
    if is_review(body):
        verdict = fake.NO if MARKER in said.rpartition("<answer>")[2] else fake.YES
        return fake.completion(next(iter(verdict)), verdict)
    if "Rewrite the answer" in said:
        return fake.completion("A kind answer.")
    return fake.completion(f"{MARKER} draft" if "harm" in said else f"good: {said}")


def test_an_answer_has_the_api_s_form_and_is_recorded(served):
    with FakeEndpoint(scripted) as backend, served(backend) as server:
        reply = server.chat("Hi", user="u-1")
        (record,) = read_journal(server.journal)
    found = reply.json()
    assert reply.status_code == 200 and reply.headers["x-conscience"] == "approved"
    assert found["object"] == "chat.completion" and found["model"] == "m"
    assert found["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "good: Hi", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert found["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert record["request"] == reply.headers["x-request-id"] and record["user"] == "u-1"
    assert record["final"] == "good: Hi" and record["scored_by"] == "logprobs"


def test_log_probs_of_an_endpoint_s_answers_are_refused(served):
    with FakeEndpoint(scripted) as backend, served(backend) as server:
        reply = server.chat("Hi", logprobs=True)
    assert reply.status_code == 400 and reply.json()["error"]["param"] == "logprobs"


def test_a_flagged_draft_is_corrected_and_never_sent(served):
    with FakeEndpoint(scripted) as backend, served(backend) as server:
        reply = server.chat("do harm")
        streamed = server.chat("do harm", stream=True)
        (record, _) = read_journal(server.journal)
    assert reply.json()["choices"][0]["message"]["content"] == "A kind answer."
    assert reply.headers["x-conscience"] == "revised_rewrite"
    assert MARKER not in reply.text + streamed.text and "A kind answer." in streamed.text
    assert record["candidate"] == f"{MARKER} draft" and record["final"] == "A kind answer."


def test_a_stream_has_the_form_of_one_and_its_usage_where_asked(served):
    with FakeEndpoint(scripted) as backend, served(backend) as server:
        reply = server.chat("Hi", stream=True, n=2, stream_options={"include_usage": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    *events, end = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    chunks = [json.loads(event) for event in events]
    assert end == "[DONE]" and chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 6
    for index in (0, 1):
        own = [c["choices"][0] for c in chunks[:-1] if c["choices"][0]["index"] == index]
        assert "".join(c["delta"].get("content", "") for c in own) == "good: Hi"
        assert [c["finish_reason"] for c in own] == [None, None, "stop"]


def test_what_is_asked_for_reaches_the_model_that_drafts(served):
    with FakeEndpoint(scripted) as backend, served(backend) as server:
        reply = server.chat(
            "do harm", n=2, max_tokens=5, temperature=0.25, top_p=0.5, stop=["x"], seed=3
        )
    assert len(reply.json()["choices"]) == 2
    drafts = [body for body in backend.bodies if body["messages"][-1]["content"] == "do harm"]
    assert sorted(body["seed"] for body in drafts) == [3, 4]
    for body in drafts:
        assert (body["max_tokens"], body["temperature"], body["top_p"]) == (5, 0.25, 0.5)
        assert body["stop"] == ["x"]
    rewrites = [body for body in backend.bodies if "Rewrite" in str(body["messages"])]
    assert {(body["max_tokens"], tuple(body["stop"])) for body in rewrites} == {(5, ("x",))}


def test_letters_that_some_take_for_the_end_of_a_line_end_none_of_a_stream(served):
    letters = "a\u2028b\u2029c\x85d\x0be\rf\ng \ud83d\ude42"

    def script(body):
        return scripted(body) if is_review(body) else fake.completion(letters)

    with FakeEndpoint(script) as backend, served(backend) as server:
        reply = server.chat("Hi", stream=True)
    lines = [line for line in reply.text.splitlines() if line]
    assert len(lines) == 4 and all(line.startswith("data: ") for line in lines)
    assert (
        json.loads(lines[1][6:])["choices"][0]["delta"]["content"]
        == "a\u2028b\u2029c\x85d\x0be\rf\ng 🙂"
    )


def test_what_people_wrote_is_for_the_owner_alone(served):
    with FakeEndpoint(scripted) as backend, served(backend) as server:
        server.chat("Hi")
    held = [server.journal, *server.journal.glob("*.jsonl")]
    assert [path.stat().st_mode & 0o077 for path in held] == [0, 0]


def test_no_text_of_an_answer_is_in_the_log_or_the_metrics(served, caplog, monkeypatch):
    faults = [fake.failure(500, MARKER), Reply((fake.response(MARKER),)), fake.broken_off(MARKER)]
    replies = iter([*faults, fake.completion(MARKER), fake.completion("Yes", fake.YES)])
    with FakeEndpoint(lambda body: next(replies)) as backend, served(backend) as server:
        for _ in faults:
            assert server.chat("Hi").status_code >= 500
        with monkeypatch.context() as broken:

            def fails(*given):
                raise RuntimeError(MARKER)

            broken.setattr(server.workers, "_record", fails)
            assert server.chat("Hi").status_code == 500
        assert MARKER not in server.ask("GET", "/metrics").text
    assert MARKER not in caplog.text and "HTTP 500" in caplog.text
    assert "RuntimeError" in caplog.text and "_record" in caplog.text


FAULTS = {
    "hang": (fake.hang(), 504),
    "dies": (fake.broken_off(MARKER), 502),
    "rubbish": (Reply((fake.response(MARKER),)), 502),
    "error": (fake.failure(500, MARKER), 503),
    "refusal": (fake.failure(400, MARKER), 400),
    "key": (fake.failure(401, MARKER), 502),
    "tool call": (Reply((fake.response(f'{{"choices": [{{"message": "{MARKER}"}}]}}'),)), 502),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_a_draft_that_fails_is_an_error_of_the_api_and_quotes_nothing(served, name, stream):
    reply, status = FAULTS[name]
    with FakeEndpoint(lambda body: reply) as backend, served(backend) as server:
        answer = server.chat("Hi", stream=stream)
        counted = server.ask("GET", "/metrics").text
    assert answer.status_code == status and MARKER not in answer.text
    assert answer.json()["error"]["message"].startswith("the model behind this server")
    assert f'emergent_alignment_requests_total{{status="{status}"}} 1.0' in counted
    assert "emergent_alignment_draft_failures_total" in counted and MARKER not in counted


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_a_reviewer_that_fails_sends_a_refusal_unless_the_policy_is_open(served, name, fail):
    def script(body):
        return FAULTS[name][0] if is_review(body) else fake.completion(f"{MARKER} draft")

    with FakeEndpoint(script) as backend, served(backend, fail=fail) as server:
        found = server.chat("Hi").json()["choices"][0]
    if fail == "closed":
        assert found["message"]["content"] == REFUSAL
        assert found["finish_reason"] == "content_filter"
    else:
        assert found["message"]["content"] == f"{MARKER} draft"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"body": b"x" * 4001}, 413), ({"body": b"\xff"}, 400), ({"body": b"{"}, 400),
        ({"model": "other"}, 404), ({"temperature": 10**400}, 400), ({"n": 0}, 400),
        ({"max_tokens": 51}, 400),
        ({"body": b'{"model": "m", "\\ud800": 1, "messages": [{"role": "user", "content": "x"}]}'},
         400),
    ],
)  # fmt: skip
def test_a_request_that_is_wrong_is_refused_and_the_server_lives_on(served, options, status):
    with FakeEndpoint(scripted) as backend, served(backend) as server:
        reply = server.chat(**options)
        assert reply.status_code == status
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert not backend.bodies
        assert server.chat("Hi").status_code == 200


def test_other_paths_and_methods_are_errors_of_the_api(served):
    with FakeEndpoint(scripted) as backend, served(backend) as server:
        for method, path, status in (
            ("GET", "/v1/chat/completions", 405),
            ("POST", "/v1/models", 405),
            ("GET", "/nowhere", 404),
            ("GET", "/v1/models/other", 404),
        ):
            reply = server.ask(method, path)
            assert reply.status_code == status and reply.json()["error"]["message"]


def test_models_health_and_metrics(served):
    with FakeEndpoint(scripted) as backend, served(backend) as server:
        assert server.ask("GET", "/v1/models").json()["data"][0]["id"] == "m"
        assert server.ask("GET", "/v1/models/m").json()["id"] == "m"
        assert server.ask("GET", "/health").json() == {"status": "ok", "model": "m"}
        server.chat("do harm")
        counted = server.ask("GET", "/metrics").text
        assert 'emergent_alignment_reviews_total{outcome="revised_rewrite"} 1.0' in counted
        assert 'emergent_alignment_scored_total{by="logprobs"} 1.0' in counted
        assert "emergent_alignment_waiting 0.0" in counted
        server.workers.close(1)
        assert server.ask("GET", "/health").status_code == 503


def test_more_requests_than_may_wait_are_sent_away_and_the_others_answered(served):
    release, replies = threading.Event(), []

    def script(body):
        release.wait(5)
        return scripted(body)

    with FakeEndpoint(script) as backend, served(backend, retries=3, num_threads=1) as server:
        asking = [
            threading.Thread(target=lambda: replies.append(server.chat("Hi"))) for _ in range(8)
        ]
        for thread in asking:
            thread.start()
        while sum(reply.status_code == 429 for reply in replies) < 5:
            assert any(thread.is_alive() for thread in asking)
        release.set()
        for thread in asking:
            thread.join()
    codes = sorted(reply.status_code for reply in replies)
    assert codes == [200, 200, 200, 429, 429, 429, 429, 429]
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"


def test_a_bug_of_ours_is_a_500_without_its_words_and_the_worker_lives_on(served, monkeypatch):
    with FakeEndpoint(scripted) as backend, served(backend, num_threads=1) as server:
        with monkeypatch.context() as broken:
            broken.setattr(server.workers, "_record", lambda *given: 1 / 0)
            reply = server.chat("Hi")
        assert reply.status_code == 500 and "division" not in reply.text
        assert reply.json()["error"]["type"] == "api_error"
        assert server.chat("Hi").status_code == 200
        assert 'status="500"} 1.0' in server.ask("GET", "/metrics").text


def test_who_is_cut_off_as_the_server_stops_is_told_in_the_api_s_form(served):
    async def cut_off(app, backend):
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
            asking = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
            while not backend.bodies:
                await asyncio.sleep(0.01)
            asking.cancel()  # as uvicorn does
            return await asking

    with FakeEndpoint(lambda body: fake.hang()) as backend, served(backend, retries=99) as server:
        reply = asyncio.run(cut_off(server.app, backend))
        assert reply.status_code == 503 and "stops" in reply.json()["error"]["message"]
        assert reply.headers["retry-after"] and b'status="503"} 1.0' in server.metrics.text()
