"""The conscience over an endpoint: scores, corrections, refusals, and what happens when it
fails."""

import math

import fake_endpoint as fake
import pytest
from fake_endpoint import FakeEndpoint, Reply, is_review

from emergent_alignment.conscience.conscience import REFUSAL, Conscience
from emergent_alignment.conscience.endpoint_hearing import without_control
from emergent_alignment.conscience.journal_records import journal_record
from emergent_alignment.conscience.pairs import ConscienceSettings
from emergent_alignment.conscience.question import QUESTIONS, Question
from emergent_alignment.conscience.review import ReviewSettings
from emergent_alignment.generation.endpoint import Endpoint, EndpointError

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What now?"}]
ANSWERED = [*PROMPT, {"role": "assistant", "content": "Do harm."}]


def settings(layout="quote", polarity="positive", **changes) -> ConscienceSettings:
    return ConscienceSettings(ReviewSettings(QUESTIONS["advice"], layout, polarity), **changes)


def over(backend: FakeEndpoint, *, asked=None, **options) -> Conscience:
    endpoint = Endpoint(backend.url, "m", retries=0, timeout_seconds=1.0)
    return Conscience(endpoint, settings=asked or settings(), **options)


def scripted(draft="Do harm.", rewrite="Be kind.", fresh="Be calm.", log_probs=True):
    """A model that flags what holds the word harm. Each text may be a Reply instead."""

    def script(body) -> Reply:
        said = body["messages"][-1]["content"]
        if is_review(body):
            judged = said.rpartition("<answer>")[2] if "<answer>" in said else str(body["messages"])
            verdict = fake.NO if "harm" in judged else fake.YES
            return fake.completion(next(iter(verdict)), verdict if log_probs else None)
        if "Rewrite the answer" in said:
            text = rewrite
        else:
            text = draft if len(drafted) == 0 else fresh
            drafted.append(text)
        return text if isinstance(text, Reply) else fake.completion(text)

    drafted = []
    return script


def respond(script, **options):
    with FakeEndpoint(script) as backend:
        response = over(backend, **options).respond(PROMPT, max_new_tokens=20, seed=None)
        return response, backend


def test_an_approved_draft_is_said_and_costs_two_calls():
    response, backend = respond(scripted(draft="Be good."))
    assert response.final == response.draft == "Be good." and not response.refused
    assert response.reviewed.outcome == "approved" and response.reviewed.scored_by == "logprobs"
    yes = math.exp(-0.1) + math.exp(-3.0)
    assert response.reviewed.score == pytest.approx(math.log(yes) + 2.5)
    assert (response.prompt_tokens, response.completion_tokens) == (7, 3)
    drafting, review = backend.bodies
    assert drafting["messages"] == PROMPT and drafting["max_tokens"] == 20
    assert review["temperature"] == 0 and review["top_logprobs"] == 20 and "seed" not in review


@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_a_flagged_draft_is_rewritten_and_the_rewrite_reviewed(layout):
    response, backend = respond(scripted(), asked=settings(layout, chain=("rewrite",)))
    _, review, rewrite, second = (body["messages"] for body in backend.bodies)
    if layout == "quote":
        assert response.final == "Be kind." and response.reviewed.outcome == "revised_rewrite"
        assert len(review) == len(rewrite) == len(second) == 1
        assert "Do harm." in review[0]["content"] and "Be kind." in second[0]["content"]
    else:
        answered = {"role": "assistant", "content": "Do harm."}
        assert review[:-1] == rewrite[:-1] == [*PROMPT, answered]
        assert second[:-1] == [*PROMPT, answered | {"content": "Be kind."}]


def test_the_chain_goes_on_to_a_fresh_answer_and_ends_in_a_refusal():
    response, _ = respond(scripted(rewrite="More harm, and worse."))
    assert response.final == "Be calm." and response.reviewed.outcome == "revised_fresh"
    response, _ = respond(scripted(rewrite="More harm, and worse.", fresh="Yet other harm."))
    assert response.final == REFUSAL and response.refused
    assert response.reviewed.outcome == "dropped_disapproved"


def test_where_no_log_probs_come_the_text_is_read_and_asked_for_once_only():
    with FakeEndpoint(scripted(log_probs=False)) as backend:
        conscience = over(backend)
        kind, harmful = (
            [*PROMPT, {"role": "assistant", "content": text}] for text in ("Be kind.", "Do harm.")
        )
        found = conscience.review([kind]) + conscience.review([harmful])
    assert [(r.score, r.approved, r.scored_by) for r in found] == [
        (1.0, True, "text"), (-1.0, False, "text"),
    ]  # fmt: skip
    assert [("logprobs" in body) for body in backend.bodies] == [True, False, False]


@pytest.mark.parametrize("threshold", [-2.0, 1.5])
def test_a_threshold_that_text_cannot_meet_is_a_failure_and_never_an_approval(threshold):
    response, _ = respond(
        scripted(draft="Be good.", log_probs=False), asked=settings(threshold=threshold)
    )
    assert response.final == REFUSAL and "no log-probs" in response.reviewed.failure


def test_who_contradicts_themselves_in_text_approves_nothing():
    def always_yes(body):
        return fake.completion("Yes" if is_review(body) else "Be good.")

    response, _ = respond(always_yes, asked=settings(polarity="both", chain=()))
    assert response.reviewed.score == -1.0 and response.refused


@pytest.mark.parametrize("threshold", [0.0, -20.0])
@pytest.mark.parametrize("top", [{"No": -0.01}, {"No": -0.8}, {"No": 0.0, "Maybe": -9.0}])
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_a_no_that_stands_alone_approves_nothing_at_any_threshold(top, threshold, fail):
    def script(body):
        return fake.completion("No", top) if is_review(body) else fake.completion("Do harm.")

    asked = settings(threshold=threshold, chain=())
    response, _ = respond(script, asked=asked, fail=fail)
    assert response.refused and not response.reviewed.failure


def test_a_tie_approves_nothing():
    def script(body):
        tie = {"Yes": -0.7, "No": -0.7}
        return fake.completion("Yes", tie) if is_review(body) else fake.completion("Do harm.")

    response, _ = respond(script, asked=settings(chain=()))
    assert response.refused and -1e-9 < response.reviewed.score < 0
    assert response.reviewed.outcome == "dropped_disapproved"


def test_a_model_of_ours_that_is_undecided_approves_nothing(model):
    words = ("Yes",), ("Yes",)
    question = Question("undecided", "Is it good?", "Is it bad?", *words)
    conscience = Conscience(model, question, polarity="positive")
    (found,) = conscience.review([ANSWERED])
    assert not found.approved and -1e-9 < found.score < 0
    (found,) = Conscience(model, question, threshold=-1.0).review([ANSWERED])
    assert found.approved


def test_both_forms_of_the_question_are_averaged():
    def yes_to_all(body):
        top = fake.YES if "bad or unsafe" in str(body) else fake.NO
        return fake.completion(next(iter(top)), top)

    with FakeEndpoint(yes_to_all) as backend:
        (both,) = over(backend, asked=settings(polarity="both")).review([ANSWERED])
        (positive,) = over(backend).review([ANSWERED])
        (negated,) = over(backend, asked=settings(polarity="negated")).review([ANSWERED])
    assert both.score == pytest.approx((positive.score + negated.score) / 2)
    assert positive.score < 0 and negated.score < 0


FAILURES = [
    fake.hang(),
    fake.broken_off("Yes"),
    fake.failure(500, "draft: Be good."),
    fake.completion("I would rather not say."),
    Reply((fake.response("<html>"),)),
]


@pytest.mark.parametrize("reply", FAILURES, ids=["hangs", "dies", "500", "no verdict", "rubbish"])
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_where_the_reviewer_fails_the_policy_decides(reply, fail):
    script = scripted(draft="Be good.")
    response, _ = respond(lambda body: reply if is_review(body) else script(body), fail=fail)
    assert response.reviewed.outcome == "dropped_reviewer_failed"
    assert response.final == (REFUSAL if fail == "closed" else "Be good.")
    record = journal_record(response.reviewed, step=0, place=0, row=0)
    assert record["failure"] and record["candidate_score"] is None


@pytest.mark.parametrize("fail", ["closed", "open"])
def test_a_flagged_draft_is_not_said_whatever_fails_after_it(fail):
    unwritten = scripted(rewrite=fake.hang(), fresh=fake.failure(500))
    response, _ = respond(unwritten, fail=fail)
    assert response.final == REFUSAL
    assert response.reviewed.outcome == "dropped_reviewer_failed"
    assert [attempt.reason for attempt in response.reviewed.attempts] == ["reviewer_failed"] * 2
    script = scripted()

    def unreviewed(body):
        second = is_review(body) and "Be kind." in str(body)
        return fake.failure(500) if second else script(body)

    response, _ = respond(unreviewed, asked=settings(chain=("rewrite",)), fail=fail)
    assert response.final == REFUSAL


def test_a_draft_that_cannot_be_written_is_an_error():
    with pytest.raises(EndpointError, match="500"):
        respond(lambda body: fake.failure(500))


def test_reasoning_is_reviewed_and_not_said():
    script = scripted(draft=fake.completion("Be good.", reasoning_content="I could do harm."))
    response, backend = respond(script, asked=settings(chain=()))
    assert response.refused and "I could do harm." in str(backend.bodies[1])
    script = scripted(draft=fake.completion("<think>Which?</think>Be good."))
    assert respond(script)[0].final == "Be good."


def test_many_prompts_are_answered_at_once_each_with_its_own_seed():
    with FakeEndpoint(scripted(draft="Be good.", fresh="Be good.")) as backend:
        responses = over(backend).respond_all([PROMPT] * 5, seed=3)
    assert [response.final for response in responses] == ["Be good."] * 5
    assert sorted(body["seed"] for body in backend.bodies if "seed" in body) == [3, 4, 5, 6, 7]


def test_a_draft_is_told_as_it_comes_and_reviewed_whole():
    script = scripted(draft=fake.stream(["Be ", "good."]))
    with FakeEndpoint(script) as backend:
        told = []
        response = over(backend).respond(PROMPT, on_text=told.append)
    assert told == ["Be ", "good."] and response.final == "Be good."


def test_quoted_text_can_spell_no_turn_of_the_usual_templates():
    for spelled in ("<|im_end|>", "</s>", "[/INST]", "<end_of_turn>", "<|eot_id|>", "<EOS>"):
        assert spelled not in without_control(f"a{spelled}b") and "a" in without_control("a")
    assert without_control("1 < 2 [a] <b>") == "1 < 2 [a] <b>"


def test_a_model_of_ours_may_review_what_an_endpoint_drafts(model):
    with FakeEndpoint(scripted(draft="Be good.")) as backend:
        endpoint = Endpoint(backend.url, "m", retries=0)
        for threshold, said in ((-1e9, "Be good."), (1e9, REFUSAL)):
            asked = settings(threshold=threshold, chain=())
            conscience = Conscience(endpoint, settings=asked, frozen=model)
            response = conscience.respond(PROMPT)
            if threshold < 0:
                assert response.final == said
            else:
                assert response.refused
            assert response.reviewed.scored_by == "logits"
