"""Waiting requests are answered in batches of like ones, each with its own answers."""

import dataclasses
import gc
import threading
import time
import weakref

import numpy as np
import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.applications.zero_shot.answerer import ZeroShot
from emergent_alignment.applications.zero_shot.conversations import ConversationJournal
from emergent_alignment.applications.zero_shot.serving.metrics import Metrics
from emergent_alignment.applications.zero_shot.serving.requests import ChatRequest
from emergent_alignment.applications.zero_shot.serving.settings import ServeSettings
from emergent_alignment.applications.zero_shot.serving.workers import QueueFull, Workers
from emergent_alignment.conscience.conscience import Conscience, Response
from emergent_alignment.conscience.drafting import Draft
from emergent_alignment.conscience.pairs import ConscienceSettings, Reviewed
from emergent_alignment.conscience.question import QUESTIONS
from emergent_alignment.conscience.review import ReviewSettings
from emergent_alignment.generation.text import Answer
from emergent_alignment.models.model import load

SETTINGS = ServeSettings(1000, 50, 1, 3, 20, 2)
REQUEST = ChatRequest([], 1, 9, 1.0, 1.0, (), None, False, False, "")


class ScriptedConscience:
    """Echoes; the text `first` waits until it is released, `fails` fails its batch."""

    settings = ConscienceSettings(ReviewSettings(QUESTIONS["advice"]))

    def __init__(self):
        self.drafter, self.batches = self, []
        self.started, self.released = threading.Event(), threading.Event()

    def drafts(self, conversations, settings, seed, ids, progress):
        texts = [conversation[0]["content"] for conversation in conversations]
        self.batches.append((texts, settings, seed, ids))
        if "first" in texts:
            self.started.set()
            self.released.wait(5)
        if "fails" in texts:
            raise RuntimeError("scripted")
        return [Draft(Answer([], np.zeros(0), text, True), 1, 1) for text in texts]

    def answered(self, conversations, drafts, seed, ids, *, settings):
        rows = [Reviewed(c, d.answer.text, 1.0, "approved") for c, d in zip(conversations, drafts)]
        return [Response(row.candidate, row, row.candidate, False, True) for row in rows]


@pytest.fixture
def working(tmp_path):
    conscience = ScriptedConscience()
    journal = ConversationJournal(tmp_path)
    workers = Workers(ZeroShot(conscience, "m", None, None), journal, Metrics(), SETTINGS)
    yield conscience, workers
    workers.close(2)
    journal.close()


def asked(text, **changes) -> ChatRequest:
    messages = [{"role": "user", "content": text}]
    return dataclasses.replace(REQUEST, messages=messages, **changes)


def behind_the_first(conscience, workers, requests):
    """Submit these while the worker is busy; the futures, once it goes on."""
    first = workers.submit(asked("first"), "first")
    assert conscience.started.wait(5)
    futures = [workers.submit(request, "name") for request in requests]
    conscience.released.set()
    assert first.result(5)[0].final == "first"
    return futures


def test_like_requests_that_wait_are_one_batch_and_get_their_own_answers(working):
    conscience, workers = working
    requests = [asked("a"), asked("b", max_tokens=8), asked("c"), asked("d", num_choices=2)]
    requests.append(asked("e"))
    futures = behind_the_first(conscience, workers, requests)
    finals = [[answer.final for answer in future.result(5)] for future in futures]
    assert finals == [["a"], ["b"], ["c"], ["d", "d"], ["e"]]
    assert [texts for texts, *_ in conscience.batches] == [
        ["first"], ["a", "c"], ["b"], ["d", "d", "e"],
    ]  # fmt: skip
    assert conscience.batches[-1][3] == [0, 1, 2], "nobody draws as another does"


def test_a_seed_decides_the_draws_whoever_stands_beside(working):
    conscience, workers = working
    requests = [asked("a", seed=7), asked("b", seed=7, num_choices=2), asked("c", seed=8)]
    for future in behind_the_first(conscience, workers, requests):
        future.result(5)
    assert [(texts, seed, ids) for texts, _, seed, ids in conscience.batches[1:]] == [
        (["a", "b", "b"], 7, [0, 0, 1]),
        (["c"], 8, [0]),
    ]


def test_a_batch_that_fails_says_so_to_its_own_requests_alone(working):
    conscience, workers = working
    requests = [asked("a"), asked("fails"), asked("b", max_tokens=8)]
    a, fails, b = behind_the_first(conscience, workers, requests)
    for future in (a, fails):
        with pytest.raises(RuntimeError, match="scripted"):
            future.result(5)
    assert b.result(5)[0].final == "b" and workers.alive()


def test_a_request_that_nobody_waits_for_any_more_is_not_answered(working):
    conscience, workers = working
    first = workers.submit(asked("first"), "first")
    assert conscience.started.wait(5)
    gone, stays = (workers.submit(asked(text), text) for text in ("gone", "stays"))
    assert gone.cancel()
    conscience.released.set()
    assert first.result(5) and stays.result(5)[0].final == "stays"
    assert [texts for texts, *_ in conscience.batches] == [["first"], ["stays"]]


def test_a_thread_that_waits_keeps_nothing_of_its_last_request(working):
    _, workers = working
    left = []
    for text in ("a", "fails"):
        answers = workers.submit(asked(text), text)
        answers.exception(5)
        left.append(weakref.ref(answers))
    del answers
    until = time.monotonic() + 60
    while any(ref() for ref in left):
        assert time.monotonic() < until, "a request outlives its answer"
        gc.collect()
        time.sleep(0.01)


def test_after_closing_nothing_is_taken(working):
    _, workers = working
    workers.close(2)
    with pytest.raises(QueueFull):
        workers.submit(asked("a"), "a")
    assert not workers.alive()


def test_a_model_of_ours_answers_by_seed_alone_or_beside_others(served, tmp_path):
    model = load(str(write_tiny_chat_model(tmp_path / "tiny")))
    review = ReviewSettings(QUESTIONS["advice"], batch_size=2)
    conscience = Conscience(model, settings=ConscienceSettings(review, threshold=-1e9, chain=()))
    with served(conscience, num_threads=1, batch_size=2, max_prompt=60) as server:
        first, again = (server.chat(seed=5, max_tokens=8, n=n).json() for n in (1, 2))
        stop = first["choices"][0]["message"]["content"][2:5]
        cut = server.chat(seed=5, max_tokens=8, stop=stop).json()
        long = server.chat("word " * 200)
    texts = [choice["message"]["content"] for choice in again["choices"]]
    assert texts[0] == first["choices"][0]["message"]["content"] != texts[1]
    assert cut["choices"][0]["message"]["content"] == texts[0].split(stop)[0].rstrip()
    assert first["usage"]["completion_tokens"] == 8
    assert first["choices"][0]["finish_reason"] == "length"
    assert long.status_code == 400 and "shorten it" in long.text
