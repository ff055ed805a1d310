"""One frozen pass: nothing is read twice, and what comes of it is what whole rows give."""

import dataclasses
import os

import jax
import numpy as np
import pytest

from emergent_alignment.conscience import reader as reader_module
from emergent_alignment.conscience import review as review_module
from emergent_alignment.conscience.frozen_hearing import FrozenReviewer
from emergent_alignment.conscience.pairs import ConscienceSettings, review_and_revise
from emergent_alignment.conscience.policy_links import score_answers
from emergent_alignment.conscience.question import QUESTIONS, ask, next_turn, rewrite_request
from emergent_alignment.conscience.review import ReviewSettings, reader_of
from emergent_alignment.data.batches import Pair, make_batch
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import (
    Batching,
    beginning_of,
    given_answer,
    sample_answers,
)
from emergent_alignment.randomness import Draws, Purpose
from emergent_alignment.training.branches import reference_log_probs
from emergent_alignment.training.step_settings import StepSettings

TEXTS = ("Hi?", "May I skip it today?", "And now, what would you do in my place?", "Why?")
PROMPTS = [[{"role": "user", "content": text}] for text in TEXTS]
DRAWS = Draws(1, Purpose.CORRECTIONS)
ANSWERS = ["Yes, do.", "No, never skip it.", "<think>They ask.</think>Wait a little.", "Because."]


def settings_of(layout, chain, **changes) -> ConscienceSettings:
    review = ReviewSettings(QUESTIONS["advice"], layout, "both", batch_size=4)
    options = {"gate": "relative", "keep_truncated": True, "max_new_tokens": 6, "temperature": 1.0}
    return ConscienceSettings(review, chain=chain, **options | changes)


def stepped(model, chat, settings, answers, **options):
    reviewer = FrozenReviewer(reader_of(model, chat, settings.review))
    return review_and_revise(
        reviewer, settings, PROMPTS, answers, DRAWS, with_reference=True, **options
    )


@pytest.fixture(scope="module")
def candidates(model, chat):
    """Given answers, and answers of the model itself that ran into their limit."""
    rows = [chat.prompt_tokens(prompt) for prompt in PROMPTS[:2]]
    sampler = sampler_settings((), 5, temperature=1.0)
    given = model, model.params, chat, rows, jax.random.key(5), sampler
    sampled = dict(sample_answers(*given, Batching()))
    assert not any(answer.ended for answer in sampled.values())
    return [sampled[0], sampled[1], *(given_answer(chat, text) for text in ANSWERS[2:])]


@pytest.mark.parametrize("chain", [("fresh",), ("rewrite",)])
@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_reference_log_probs_are_those_that_the_step_would_compute(
    model, chat, candidates, layout, chain
):
    found = stepped(model, chat, settings_of(layout, chain), candidates)
    paired = [i for i, row in enumerate(found) if row.chosen is not None]
    assert paired, "the random model prefers some correction"
    pairs = [
        Pair(found[i].chosen.tokens, candidates[i].tokens) if i in paired else None
        for i in range(len(found))
    ]
    prompts = [chat.prompt_tokens(prompt) for prompt in PROMPTS]
    batch = make_batch(prompts, prompts, pairs, prompt_width=64, branch_width=64)
    expected = reference_log_probs(StepSettings(model.config, None), model.params, batch)
    for i in paired:
        np.testing.assert_allclose(found[i].reference, expected[i], rtol=1e-5, atol=1e-4)
    assert all(found[i].reference is None for i in range(len(found)) if i not in paired)


@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_a_row_comes_out_the_same_in_any_batch(model, chat, candidates, layout):
    settings = settings_of(layout, ("rewrite", "fresh"), critique=True)
    whole = stepped(model, chat, settings, candidates)
    narrow = dataclasses.replace(
        settings, review=dataclasses.replace(settings.review, batch_size=1)
    )
    for row, alone in zip(whole, stepped(model, chat, narrow, candidates)):
        assert row.outcome == alone.outcome and row.critique == alone.critique
        assert [a.answer.tokens for a in row.attempts] == [a.answer.tokens for a in alone.attempts]
        np.testing.assert_allclose(row.score, alone.score, atol=1e-5)


@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_written_side_by_side_the_links_write_what_they_write_one_after_the_other(
    model, chat, candidates, layout
):
    """… with their scores and log-probs, in one batch where there were two."""
    settings = settings_of(layout, ("rewrite", "fresh"), margin=0.5)
    apart = stepped(model, chat, settings, candidates)
    settings = dataclasses.replace(settings, one_batch=True)
    for row, alone in zip(stepped(model, chat, settings, candidates), apart):
        assert row.outcome == alone.outcome
        assert [(a.link, a.reason) for a in row.attempts] == [
            (a.link, a.reason) for a in alone.attempts
        ]
        for one, other in zip(row.attempts, alone.attempts):
            assert one.answer.tokens == other.answer.tokens
            np.testing.assert_allclose(one.score, other.score, atol=1e-4)
        if row.reference is not None:
            np.testing.assert_allclose(row.reference, alone.reference, rtol=1e-5, atol=1e-4)
    links = {attempt.link for row in apart for attempt in row.attempts}
    assert links == {"rewrite", "fresh"}


@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_a_request_on_top_of_what_was_read_is_the_whole_row(
    model, chat, candidates, layout, last_hidden
):
    """… and rewriting goes on from the very tokens that a conversation would have."""
    reader = reader_of(model, chat, settings_of(layout, ()).review)
    prompts = reader.read_prompts(PROMPTS) if layout == "turn" else None
    case, _ = reader.case(prompts, PROMPTS, candidates)
    request = rewrite_request("It is rude.")
    rows = reader.rows(case, [request] * len(PROMPTS))
    assert rows[2:] == [
        ask(chat, layout, prompt, answer, request)
        for prompt, answer in zip(PROMPTS[2:], ANSWERS[2:])
    ]
    both = [rows, reader.rows(case, ["Is it?"] * len(PROMPTS))]
    before = reader.before(case, both)
    assert all(row[: len(read)] == read for row, read in zip(rows, before.tokens))
    assert min(map(len, before.tokens)) > 20, "more than the beginning is shared"
    shown = reader.extend(before, rows)
    for i, row in enumerate(rows):
        hidden = last_hidden(row)
        np.testing.assert_allclose(shown.held.last[i], hidden, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_every_prompt_and_answer_is_read_once(model, chat, candidates, layout, monkeypatch):
    """Tokens that pass through the frozen copy, counted, against those that must."""
    settings = settings_of(layout, ("rewrite",))
    reader = reader_of(model, chat, settings.review)
    read = []

    def counted(config, params, tokens, lengths, before=None, **options):
        read.extend(tokens[i, :n].tolist() for i, n in enumerate(lengths) if n)
        return prefill(config, params, tokens, lengths, before, **options)

    prefill = reader_module.prefill
    monkeypatch.setattr(reader_module, "prefill", counted)
    review_and_revise(FrozenReviewer(reader), settings, PROMPTS, candidates, DRAWS)
    prompts = [chat.prompt_tokens(prompt) for prompt in PROMPTS]
    assert sum(row in prompts for row in read) == len(PROMPTS)
    beginning = reader.beginning.tokens[0]
    assert layout == "turn" or len(beginning) > 20
    again = [row for row in read if row[:20] == beginning[:20] and row not in prompts]
    assert layout == "turn" or not again, "the beginning of quoted reviews is read when it is made"


@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_a_verdict_costs_its_question_and_a_fresh_answer_is_read_by_writing_it(
    model, chat, layout, monkeypatch
):
    """Every token that the frozen copy reads, reference log-probs included, and no more: prompts
    and candidates once; in the `turn` layout the questions' own tokens; in the `quote` layout
    what the forms of a question share once a row, without the beginning that all rows share."""
    settings = settings_of(layout, ("fresh",))
    reader = reader_of(model, chat, settings.review)
    read = dict.fromkeys(("prefill", "answer_log_probs", "word_margins"), 0)

    def counted(module, name, place):
        function = getattr(module, name)

        def counting(*inputs, **options):
            read[name] += int(np.asarray(inputs[place]).sum())
            return function(*inputs, **options)

        monkeypatch.setattr(module, name, counting)

    for module, name, place in (
        (reader_module, "prefill", 3),
        (reader_module, "answer_log_probs", 4),
        (review_module, "word_margins", 4),
    ):
        counted(module, name, place)
    given = [given_answer(chat, text) for text in ANSWERS]
    found = stepped(model, chat, settings, given)
    corrections = [
        (prompt, attempt.answer)
        for prompt, row in zip(PROMPTS, found)
        for attempt in row.attempts
        if np.isfinite(attempt.score)
    ]
    assert len(corrections) == len(PROMPTS) and any(row.chosen for row in found)
    shared, asked = 0, 0
    for prompt, answer in [*zip(PROMPTS, given), *corrections]:
        requests = [form.request for form in settings.review.forms]
        if layout == "turn":
            # The last token of an answer that was cut has not passed through the model yet.
            asked += sum(len(next_turn(chat, request)) + (not answer.ended) for request in requests)
        else:
            rows = [ask(chat, layout, prompt, answer.text, request) for request in requests]
            common = len(os.path.commonprefix(rows))
            shared += common - len(reader.beginning.tokens[0])
            asked += sum(len(row) - common for row in rows)
    prompts = sum(len(chat.prompt_tokens(prompt)) for prompt in PROMPTS)
    # A row without a pair needs no reference: an end token stands in its place.
    answers = [
        len(answer.tokens) if layout == "turn" or row.chosen else 1
        for answer, row in zip(given, found)
    ]
    assert read == {
        "prefill": prompts + len(reader.beginning.tokens[0]) + shared,
        "answer_log_probs": sum(answers),
        "word_margins": asked,
    }


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_beginnings_score_as_they_do_when_they_are_read_by_themselves(
    model, chat, candidates, layout, window
):
    """… also where a layer has a window that is shorter than what is cut off."""
    config = dataclasses.replace(model.config, layer_windows=(window, None))
    model = dataclasses.replace(model, config=config)
    settings = settings_of(layout, ())
    reviewer = FrozenReviewer(reader_of(model, chat, settings.review))
    picks = [(row, kept) for row, answer in enumerate(candidates)
             for kept in range(1, len(answer.tokens) + 1)]  # fmt: skip
    hearing = reviewer.hear(settings, PROMPTS, candidates, DRAWS, np.arange(4))
    known = [score.nats for score in hearing.scores_of_beginnings(picks)]
    prompts = [PROMPTS[row] for row, _ in picks]
    answers = [beginning_of(candidates[row], kept, chat) for row, kept in picks]
    ids = np.arange(len(picks))
    alone = score_answers(reviewer, settings, prompts, answers, DRAWS, ids)
    np.testing.assert_allclose(known, [score.nats for score in alone], atol=1e-5)
    assert len(picks) > 8 and np.ptp(known) > 1e-3


def test_text_that_does_not_begin_as_expected_is_read_from_its_start(model, chat, last_hidden):
    reader = reader_of(model, chat, ReviewSettings(QUESTIONS["advice"], batch_size=2))
    rows = [chat.encode("something else"), reader.beginning.tokens[0] + [5]]
    shown = reader.extend(reader.beginning, rows)
    for i, row in enumerate(rows):
        hidden = last_hidden(row)
        np.testing.assert_allclose(shown.held.last[i], hidden, rtol=1e-4, atol=1e-4)
