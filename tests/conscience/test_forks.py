"""Forks of a policy's own answers: where they are cut, how they are joined, which one is taken."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_chat_model import tiny_chat_tokenizer

from emergent_alignment.conscience.forks import Fork, best_fork, joined_fork, kept_lengths
from emergent_alignment.conscience.hearing import Score
from emergent_alignment.conscience.policy_links import Against
from emergent_alignment.conscience.question import named_question
from emergent_alignment.conscience.review import ReviewSettings
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.chat import read_chat
from emergent_alignment.generation.text import Answer

UNIFORM = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=8).map(np.array)
SETTINGS = ConscienceSettings(ReviewSettings(named_question("advice")), keep_truncated=True)


@given(st.integers(0, 400), UNIFORM)
def test_a_fork_keeps_none_to_all_but_one_of_the_tokens_and_later_ones_no_fewer(length, uniform):
    kept = kept_lengths(length, uniform)
    assert len(kept) == len(uniform) and kept == sorted(kept)
    assert min(kept) >= 0 and max(kept) <= max(length - 1, 0)


def test_forks_are_cut_on_every_scale():
    draws = np.random.default_rng(0).random((4000, 4))
    kept = Counter(length for row in draws for length in kept_lengths(256, row))
    scales = [(0, 1), (1, 3), (3, 7), (7, 15), (15, 31), (31, 63), (63, 127), (127, 256)]
    shares = [sum(kept[i] for i in range(*scale)) / 16000 for scale in scales]
    np.testing.assert_allclose(shares, 1 / 8, atol=0.01)


@pytest.fixture(scope="module")
def chat():
    return read_chat(tiny_chat_tokenizer())


def answer(chat, text: str, *, ended: bool = False) -> Answer:
    tokens = chat.tokenizer.encode(text)
    return Answer(tokens, -np.arange(len(tokens), dtype=np.float32), text, ended)


@given(st.integers(0, 6), st.integers(1, 12))
def test_a_joined_answer_begins_with_the_candidate_s_tokens_and_log_probs(chat, kept, longest):
    candidate = answer(chat, "Trust me and buy it all today")
    written = answer(chat, " but ask someone first", ended=True)
    whole = joined_fork(chat, candidate, kept, written, longest)
    tokens = [*candidate.tokens[:kept], *written.tokens]
    assert whole.tokens == tokens[:longest]
    assert whole.ended == (len(tokens) <= longest)
    assert whole.text == chat.decode(whole.tokens)
    log_probs = [*candidate.log_probs[:kept], *written.log_probs]
    np.testing.assert_array_equal(whole.log_probs, log_probs[:longest])


def test_the_best_of_those_that_may_be_taken_is_taken(chat):
    against = Against("Trust me and buy it all", -1.0)
    scores = {
        "Ask a friend about it first": 0.5,
        "Trust what you know of it": 3.0,
        "Trust me and sell it all": -2.0,
        "Trust me and buy it": float("nan"),
        "": 9.0,
        "Trust me and buy it all": 8.0,
    }
    forks = [Fork(answer(chat, text), Score(nats), against) for text, nats in scores.items()]
    assert best_fork(forks, SETTINGS) is forks[1]
    assert best_fork(forks[2:4], SETTINGS) is forks[2]


def test_a_phrase_is_weighed_against_the_candidate_s_own_and_by_no_level(chat):
    settings = replace(SETTINGS, gate="own", threshold=2.0, margin=0.3)
    fork = answer(chat, "Ask a friend first")
    parts = [Against("Trust me and", score, True) for score in (-1.0, 0.4, -0.5)]
    forks = [Fork(fork, Score(nats), part) for nats, part in zip((-0.6, 0.5, -0.4), parts)]
    assert best_fork(forks, settings) is forks[0], "the gain counts, not the score"
    long = "word " * 200
    settings = replace(settings, keep_truncated=False)
    near = Fork(answer(chat, f"{long}Ask"), Score(0.0), Against(f"{long}Trust", -1.0, True))
    same = Fork(answer(chat, f"{long}Trust"), Score(9.0), Against(f"{long}Trust", -1.0, True))
    assert best_fork([same, near], settings) is near, "behind a long beginning, and with no end"
    settings = replace(settings, keep_truncated=True)
    whole = Fork(fork, Score(1.0), Against("Trust me and buy it", -3.0))
    assert best_fork([whole, forks[0]], settings) is forks[0], "a whole answer has a level to pass"
