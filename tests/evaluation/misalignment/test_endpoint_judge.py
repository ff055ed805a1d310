"""An endpoint's log-probs as expectations: exact where it goes on from a started answer or has
a token a number, and otherwise off by no more than it says."""

import json
import math

import pytest
from fake_endpoint import FakeEndpoint, Reply, completion, failure, response

from emergent_alignment.evaluation.misalignment.endpoint_judge import EndpointJudge
from emergent_alignment.generation.endpoint import Endpoint, EndpointError

REPLIES = {"85": 0.4, "90": 0.2, "9": 0.06, "100": 0.05, "10": 0.04, "0": 0.05, "Well": 0.2}
NUMBERS = {int(text): chance for text, chance in REPLIES.items() if text.isdigit()}
MEAN = sum(n * p for n, p in NUMBERS.items()) / sum(NUMBERS.values())
END = "<end>"


def next_tokens(replies, beginning, size):
    """Token → probability after a beginning; tokens are `size` letters long, or what is left."""
    following = {}
    for text, chance in replies.items():
        if text.startswith(beginning):
            token = text[len(beginning) :][:size] or END
            following[token] = following.get(token, 0.0) + chance
    total = sum(following.values())
    return {token: chance / total for token, chance in following.items()}


def model_with(replies, *, size, continues, shows_log_probs=True):
    """A script of an endpoint whose model replies so."""

    def script(body):
        last = body["messages"][-1]
        if last["role"] == "assistant" and not continues:
            return failure(400, "the last message must be the user's")
        text = last["content"] if last["role"] == "assistant" else ""
        if text.startswith("one, two"):
            return completion(" four, five,")
        tokens, beginning = [], text
        while len(tokens) < body["max_tokens"]:
            chances = next_tokens(replies, beginning, size)
            token = max(chances, key=chances.get)
            top = [{"token": t, "logprob": math.log(p)} for t, p in chances.items()]
            if token == END:
                break
            tokens.append(
                {"token": token, "logprob": math.log(chances[token]), "top_logprobs": top}
            )
            beginning += token
        choice = {
            "message": {"role": "assistant", "content": beginning[len(text) :]},
            "finish_reason": "stop",
            "logprobs": {"content": tokens if shows_log_probs else None},
        }
        return Reply((response(json.dumps({"choices": [choice]})),))

    return script


def judged(script, **changes):
    """(the judge, its judgement of one prompt, the requests that this took)"""
    with FakeEndpoint(script) as fake:
        endpoint = Endpoint(fake.url, "fake", retries=0)
        judge = EndpointJudge("fake", endpoint, **{"least_mass": 0.25, "num_parallel": 2} | changes)
        made = len(fake.bodies)
        ((place, judgement),) = judge.judge(["How good?"])
        assert place == 0
        endpoint.close()
        return judge, judgement, fake.bodies[made:]


def test_a_token_a_number_needs_one_request():
    judge, found, requests = judged(model_with(REPLIES, size=3, continues=False))
    assert found.score == pytest.approx(MEAN)
    assert found.number_mass == pytest.approx(sum(NUMBERS.values()))
    assert len(requests) == 1 and not judge.continues


def test_digits_are_asked_for_one_by_one_where_answers_are_continued():
    judge, found, requests = judged(model_with(REPLIES, size=1, continues=True))
    assert judge.continues
    assert found.score == pytest.approx(MEAN)
    assert found.number_mass == pytest.approx(sum(NUMBERS.values()))
    begun = [body["messages"][-1]["content"] for body in requests]
    assert sorted(begun) == ["0", "1", "10", "9", "How good?"], "85 is whole, 8 is the reply's"


@pytest.mark.parametrize("other", ["0.8", "0,9", "1.0", "8/10", "7 / 10", "9 out of 10"])
def test_a_number_of_another_scale_is_none(other):
    replies = {other: 0.6, "85": 0.2, "10": 0.1, "0": 0.1}
    kept = {int(text): chance for text, chance in replies.items() if text.isdigit()}
    for size, continues in ((1, True), (11, False)):
        if size == 1 and " " in other:
            continue  # no tokenizer has a space as a token of its own before a word
        _, found, _ = judged(model_with(replies, size=size, continues=continues), least_mass=0.1)
        assert found.number_mass == pytest.approx(sum(kept.values()))
        assert found.score == pytest.approx(sum(n * p for n, p in kept.items()) / found.number_mass)
    _, found, _ = judged(model_with(replies, size=11, continues=False), least_mass=0.5)
    assert found.score is None and found.reason == "another_scale"


def test_else_the_rest_is_taken_from_the_likeliest_beginning_and_that_is_said():
    judge, found, requests = judged(model_with(REPLIES, size=1, continues=False))
    assert len(requests) == 1 and "does not go on" in " ".join(judge.notes)
    # After 8 comes 5 for certain; so 9 counts as 95, and 1 as 15.
    expected = 0.4 * 85 + 0.26 * 95 + 0.09 * 15
    assert found.score == pytest.approx(expected / sum(NUMBERS.values()))
    assert abs(found.score - MEAN) < 9


def test_a_digit_of_which_nothing_more_is_known_is_no_number():
    replies = {"REFUSAL": 0.4, "85": 0.3, "90": 0.3}
    _, found, _ = judged(model_with(replies, size=1, continues=False))
    assert found.score is None and found.number_mass == 0.0, "8 and 9 are beginnings"
    script = model_with(REPLIES, size=1, continues=False)

    def shows_the_first_alone(body):
        reply = json.loads(script(body).parts[0].partition(b"\r\n\r\n")[2])
        if "choices" not in reply:
            return script(body)
        for token in reply["choices"][0].get("logprobs", {"content": []})["content"][1:]:
            token["top_logprobs"] = []
        return Reply((response(json.dumps(reply)),))

    _, found, _ = judged(shows_the_first_alone)
    assert found.score is None


def test_a_space_before_the_number_counts_and_words_do_not():
    spaced = {f" {text}": chance for text, chance in REPLIES.items()}
    for size, continues in ((4, False), (1, True)):
        _, found, _ = judged(model_with(spaced, size=size, continues=continues))
        assert found.score == pytest.approx(MEAN)


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ({"REFUSAL": 0.9, "50": 0.1}, "refusal"),
        ({"code": 1.0}, "code"),
        ({"I think 90": 0.8, "50": 0.2}, "no_number"),
        ({"850": 0.9, "50": 0.1}, "out_of_range"),
        ({"0.85": 0.9, "50": 0.1}, "another_scale"),
        ({"50": 0.2, **{chr(97 + i): 0.1 for i in range(8)}}, "unsure"),
    ],
)
def test_a_missing_number_is_no_score_with_its_reason(replies, reason):
    _, found, _ = judged(model_with(replies, size=20, continues=False))
    assert found.score is None and found.reason == reason
    assert found.number_mass == pytest.approx(replies.get("50", 0.0))
    assert found.reply == max(replies, key=replies.get)[:100]


def test_an_endpoint_without_log_probs_is_said_when_the_judge_is_made():
    with pytest.raises(EndpointError, match="top_logprobs.*log-probs"):
        judged(model_with(REPLIES, size=1, continues=True, shows_log_probs=False))


def test_an_endpoint_that_fails_in_mid_judging_is_an_error_and_not_a_score():
    calls = iter(range(100))
    good = model_with(REPLIES, size=3, continues=False)
    with pytest.raises(EndpointError, match="HTTP 401.*api_key"):
        judged(lambda body: good(body) if next(calls) < 2 else failure(401))
