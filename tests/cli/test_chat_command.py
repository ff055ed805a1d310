"""`chat` and `respond` as a user sees them: what is said, what is kept, what goes wrong."""

import io
import json

import fake_endpoint as fake
import pytest
from fake_endpoint import FakeEndpoint, is_review

from emergent_alignment.cli.chat import printable
from emergent_alignment.cli.main import main
from emergent_alignment.conscience.conscience import REFUSAL
from emergent_alignment.conscience.journal import read_journal


@pytest.fixture
def talk(monkeypatch, capsys, tmp_path):
    """talk(lines, words…) runs `chat` with these lines typed; (what is shown, the journal)."""

    def run(lines, *words):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
        given = ["chat", "--journal", tmp_path / "journal", "--max-new-tokens", "6", *words]
        assert main([str(word) for word in given]) == 0
        return capsys.readouterr().out, read_journal(tmp_path / "journal")

    return run


def scripted(body):
    """A model whose drafts harm where it is asked to."""
    said = body["messages"][-1]["content"]
    if is_review(body):
        verdict = fake.NO if "harm" in said.rpartition("<answer>")[2] else fake.YES
        return fake.completion(next(iter(verdict)), verdict)
    if "Rewrite the answer" in said:
        return fake.completion("Rather be kind.")
    pieces = ["Do ", "harm."] if said == "worse" else ["Be ", "good."]
    return fake.stream(pieces) if body.get("stream") else fake.completion("".join(pieces))


def test_a_talk_shows_draft_verdict_and_revision_and_goes_on_with_what_was_said(talk):
    with FakeEndpoint(scripted) as backend:
        words = "--endpoint", backend.url, "--config.endpoint.retries=0", "--system", "Be brief."
        shown, journal = talk(["hello", "", "worse", "/help", "/new", "hello", "/quit"], *words)
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "draft Be good.",
        "draft Do harm.",
        "revision rewrite, score +2.45 nats",
        "answer Rather be kind.",
        "there are /new and /quit",
    ):
        assert line in lines, shown
    assert any(line.startswith("verdict flagged (score -2.40 nats)") for line in lines)
    drafts = [body["messages"] for body in backend.bodies if body.get("stream")]
    roles = [[turn["role"] for turn in messages] for messages in drafts]
    assert roles == [["system", "user"], ["system", "user", "assistant", "user"], roles[0]]
    assert drafts[1][2]["content"] == "Be good."
    assert [(r["step"], r["outcome"]) for r in journal] == [
        (0, "approved"), (1, "revised_rewrite"), (2, "approved"),
    ]  # fmt: skip
    assert [r["final"] for r in journal] == ["Be good.", "Rather be kind.", "Be good."]


def test_another_start_numbers_the_journal_on(talk):
    with FakeEndpoint(scripted) as backend:
        talk(["hello"], "--endpoint", backend.url)
        _, journal = talk(["worse"], "--endpoint", backend.url)
    assert [(r["step"], r["candidate"]) for r in journal] == [(0, "Be good."), (1, "Do harm.")]


def test_a_failing_endpoint_is_one_line_and_the_talk_goes_on(talk):
    def broken(body):
        return scripted(body) if "again" in str(body["messages"]) else fake.failure(500)

    with FakeEndpoint(broken) as backend:
        words = "--endpoint", backend.url, "--config.endpoint.retries=0"
        shown, journal = talk(["hello", "again"], *words)
    assert "HTTP 500" in shown and "Traceback" not in shown
    assert [record["candidate"] for record in journal] == ["Be good."]


def test_a_reviewer_that_fails_is_said_and_a_refusal_given(talk):
    def mute(body):
        return fake.failure(400) if is_review(body) else scripted(body)

    with FakeEndpoint(mute) as backend:
        shown, journal = talk(["hello"], "--endpoint", backend.url)
    assert "the reviewer failed" in shown and REFUSAL in shown
    assert journal[0]["failure"] and journal[0]["refused"]


def test_a_model_of_ours_talks_too(talk, model):
    words = f"--config.model.path={model}", "--config.conscience.threshold=-1000"
    shown, journal = talk(["hello", "and now?"], *words)
    assert shown.count("verdict") == 2 and len(journal) == 2
    assert journal[1]["prompt"][1] == {"role": "assistant", "content": journal[0]["final"]}


def test_a_prompt_that_is_too_long_is_said(talk, model):
    shown, journal = talk(["hello " * 3000], f"--config.model.path={model}")
    assert "shorten it" in shown and not journal


def test_what_a_model_writes_cannot_steer_the_terminal():
    assert printable("a\x1b[2J\x07\u202eb\nc\td") == "a\ufffd[2J\ufffd\ufffdb\nc\td"


def test_mistakes_are_one_line(fails, model, tmp_path):
    assert "base_url" in fails("chat", "--endpoint", "nowhere")
    both = "--run", tmp_path, "--endpoint", "http://127.0.0.1:9/v1"
    assert "two models" in fails("chat", *both)
    down = "--endpoint", "http://127.0.0.1:9/v1", "--config.endpoint.retries=0"
    assert "is it running" in fails("respond", "Hi", *down)
    assert "too few" in fails("chat", "--max-new-tokens", "2000", f"--config.model.path={model}")
    assert "conscience.fail" in fails("chat", "--config.conscience.fail=ajar")


def test_respond_over_an_endpoint_keeps_what_was_said(tmp_path, capsys):
    with FakeEndpoint(scripted) as backend:
        output = tmp_path / "out.jsonl"
        words = "respond", "worse", "--endpoint", backend.url, "--output", str(output)
        assert main(list(words)) == 0
    (record,) = map(json.loads, output.read_text().splitlines())
    assert record["final"] == "Rather be kind." and record["scored_by"] == "logprobs"
    assert "verdict:  revised_rewrite (score -2.400, by logprobs)" in capsys.readouterr().out
