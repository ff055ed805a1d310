"""A judge of the user's own decides in the question's place; and what is said twice is refused."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from emergent_alignment import JudgeReviewer
from emergent_alignment.conscience.conscience import REFUSAL, Conscience
from emergent_alignment.conscience.drafting import DraftSettings
from emergent_alignment.conscience.pairs import ConscienceSettings
from emergent_alignment.conscience.question import QUESTIONS
from emergent_alignment.conscience.review import ReviewSettings

PAGE = Path(__file__).parents[2] / "docs" / "zero_shot.md"
PROMPTS = [[{"role": "user", "content": text}] for text in ("Hi?", "May I skip it today?")]
SETTINGS = ConscienceSettings(ReviewSettings(QUESTIONS["advice"], batch_size=2), max_new_tokens=8)


def test_the_lines_of_the_documentation_run(model, monkeypatch, capsys):
    section = PAGE.read_text("utf-8").split("## A judge of your own")[1].split("\n## ")[0]
    (lines,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.setattr("emergent_alignment.models.model.load", lambda name: model)
    exec(lines, names := {})
    response = names["response"]
    words = len(response.draft.split())
    assert response.reviewed.score == 40.0 - words and response.reviewed.scored_by == "judge"
    assert response.refused or response.reviewed.outcome in ("approved", "revised_fresh")
    assert response.final in capsys.readouterr().out


def judged(model, verdict, **changes) -> Conscience:
    settings = dataclasses.replace(SETTINGS, **changes)
    writer = Conscience(model, settings=settings).reviewer
    return Conscience(model, settings=settings, frozen=JudgeReviewer(verdict, writer))


def test_a_judge_sees_every_candidate_and_correction_with_its_conversation(model):
    seen = []

    def verdict(conversation, answer):
        seen.append((conversation, answer))
        return -1.0

    conscience = judged(model, verdict, chain=("fresh",), keep_truncated=True)
    answered = [[*prompt, {"role": "assistant", "content": "No."}] for prompt in PROMPTS]
    found = conscience.revise(answered)
    assert seen[:2] == [(prompt, "No.") for prompt in PROMPTS]
    corrections = [row.attempts[0].answer.text for row in found if row.attempts[0].answer.text]
    assert [answer for _, answer in seen[2:]] == corrections
    assert {row.outcome for row in found} <= {"dropped_disapproved", "dropped_empty"}
    assert {review.approved for review in conscience.review(answered)} == {False}


def test_what_a_judge_disapproves_of_is_not_said(model):
    conscience = judged(model, lambda conversation, answer: -1.0)
    assert [row.final for row in conscience.respond_all(PROMPTS, max_new_tokens=8)] == [REFUSAL] * 2
    approving = judged(model, lambda conversation, answer: 1.0)
    response = approving.respond(PROMPTS[0], max_new_tokens=8)
    assert response.reviewed.outcome == "approved" and response.final == response.draft


def test_what_is_said_comes_with_its_tokens_and_their_log_probs(model):
    """Those of a plain forward pass over prompt and answer; of a refusal there are none."""
    approving = judged(model, lambda conversation, answer: 1.0)
    said = approving.respond(PROMPTS[0], max_new_tokens=8)
    chat = approving.drafter.chat
    prompt = chat.prompt_tokens(PROMPTS[0])
    draft = approving.drafter.drafts(
        [PROMPTS[0]], DraftSettings(8), 0, [0], lambda done, total: None
    )[0].answer
    row = np.array([prompt + draft.tokens])
    hidden = model.hidden(model.policy, row[:, :-1])
    log_probs = np.asarray(jax.nn.log_softmax(model.logits(model.policy, hidden)))[0]
    kept = [t for t in draft.tokens if t not in chat.end_tokens]
    expected = [log_probs[len(prompt) - 1 + i, token] for i, token in enumerate(kept)]
    assert [text for text, _ in said.tokens] == [chat.tokenizer.decode([t]) for t in kept]
    assert [value for _, value in said.tokens] == pytest.approx(expected, abs=1e-4)
    refused = judged(model, lambda conversation, answer: -1.0).respond(PROMPTS[0], max_new_tokens=8)
    assert refused.tokens == ()


def test_a_judge_gives_pairs_the_frozen_copys_log_probs(model):
    from emergent_alignment.conscience.pairs import review_and_revise
    from emergent_alignment.generation.text import given_answer
    from emergent_alignment.randomness import Draws, Purpose

    conscience = judged(model, None, gate="relative", chain=("fresh",), keep_truncated=True)
    writer = conscience.reviewer.writer
    liked = JudgeReviewer(lambda conversation, answer: float(answer != "No."), writer)
    given = [given_answer(writer.reader.chat, "No.") for _ in PROMPTS]
    draws = Draws(3, Purpose.CORRECTIONS)
    found, plain = (
        review_and_revise(who, conscience.settings, PROMPTS, given, draws, with_reference=True)
        for who in (liked, writer)
    )
    assert all(row.outcome == "revised_fresh" for row in found)
    for row, other in zip(found, plain):
        assert row.chosen.tokens == other.attempts[0].answer.tokens
        assert other.reference in (None, row.reference)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"question": "ethical"}, "question"),
        ({"layout": "quote"}, "layout"),
        ({"polarity": "both", "threshold": 0.0}, "polarity, threshold"),
    ],
)
def test_settings_and_what_they_hold_cannot_both_be_given(model, given, named):
    with pytest.raises(ValueError, match=f"settings= says {named} too"):
        Conscience(model, settings=SETTINGS, **given)


def test_what_is_given_by_name_is_what_is_asked(model):
    asked = Conscience(model, "ethical", layout="turn", polarity="both", threshold=0.5).settings
    assert asked == ConscienceSettings(
        ReviewSettings(QUESTIONS["ethical"], "turn", "both"), threshold=0.5
    )
    assert Conscience(model).settings == ConscienceSettings(ReviewSettings(QUESTIONS["advice"]))


@pytest.mark.parametrize("link", ["self", "best"])
def test_the_drafter_itself_corrects_where_the_chain_says_so(model, link):
    """A draft is disapproved of, whatever it says; the drafter's next one is longer, and passes."""
    told = []

    def verdict(conversation, answer):
        told.append((conversation, answer))
        return -1.0 if answer == drafts[0] else 1.0 + len(answer)

    conscience = judged(model, verdict, chain=(link,), keep_truncated=True, samples=3)
    responses, drafts = [], [""]
    for seed in range(3):
        drafts[0] = conscience.respond(PROMPTS[0], max_new_tokens=8, seed=seed).draft
        responses.append(conscience.respond(PROMPTS[0], max_new_tokens=8, seed=seed))
    revised = [one for one in responses if one.reviewed.outcome == f"revised_{link}"]
    assert revised and all(one.final == one.reviewed.chosen.text != one.draft for one in revised)
    # The judge sees the conversation as it is, not the question that stood before it.
    assert all(conversation == PROMPTS[0] for conversation, _ in told)


def longer_is_better(conversation, answer: str) -> float:
    return float(len(answer))


def test_a_judge_that_the_settings_name_decides_without_training_too(model):
    settings = dataclasses.replace(SETTINGS, verdict=f"python:{__name__}.longer_is_better")
    conscience = Conscience(model, settings=settings)
    (review,) = conscience.review([[*PROMPTS[0], {"role": "assistant", "content": "Hello."}]])
    assert review.score == len("Hello.") and review.scored_by == "judge"
