"""An endpoint's reply as a score, against sums by hand."""

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from emergent_alignment.conscience.endpoint_verdict import (
    read_log_probs,
    score_from_log_probs,
    score_from_text,
)
from emergent_alignment.conscience.question import QUESTIONS
from emergent_alignment.conscience.review import question_form
from emergent_alignment.data.reasoning import split_reasoning, with_reasoning
from emergent_alignment.generation.completion import Completion, TokenLogProbs

FORM = question_form(QUESTIONS["advice"], negated=False)
NEGATED = question_form(QUESTIONS["advice"], negated=True)


def completion(*tokens: tuple[str, dict]) -> Completion:
    listed = tuple(
        TokenLogProbs(text, top.get(text, -9.0), {t: v for t, v in top.items() if t != "hidden"})
        for text, top in tokens
    )
    return Completion("".join(text for text, _ in tokens), "stop", listed)


def logs(**probabilities) -> dict[str, float]:
    return {token: math.log(p) for token, p in probabilities.items()}


def test_the_score_is_the_log_ratio_of_all_spellings():
    top = logs(Yes=0.4, yes=0.2, No=0.1, Maybe=0.1) | {" YES": math.log(0.1), "Ġno": math.log(0.1)}
    found = score_from_log_probs(completion(("Yes", top)), FORM)
    assert found == pytest.approx(math.log(0.7 / 0.2))
    assert score_from_log_probs(completion(("Yes", top)), NEGATED) == pytest.approx(-found)


def test_a_side_that_is_not_shown_counts_as_the_least_likely_token_shown():
    top = logs(Yes=0.9, Maybe=0.02, I=0.01)
    expected = math.log(0.9 / 0.01)
    assert score_from_log_probs(completion(("Yes", top)), FORM) == pytest.approx(expected)
    assert score_from_log_probs(completion(("Yes", top)), NEGATED) == pytest.approx(-expected)


def test_it_is_read_where_the_reply_answers_and_after_what_it_thinks():
    words = logs(Yes=0.2, No=0.6)
    thought = [("<think>", {"<think>": 0.0}), ("Yes", logs(Yes=0.9)), ("</think>", {"</think>": 0})]
    for lead in ([("Answer", logs(Answer=0.9)), (":", {":": -0.1})], thought):
        found = score_from_log_probs(completion(*lead, ("No", words)), FORM)
        assert found == pytest.approx(math.log(0.2 / 0.6))


@pytest.mark.parametrize("ends", [("<thought>", "</thought>"), ("<Think>", "</Think>")])
def test_a_thought_of_any_name_is_none_of_the_answer(ends):
    start, end = ends
    tokens = [(start, {start: 0.0}), ("Yes", logs(Yes=0.9, No=0.05)), (end, {end: 0.0})]
    found = score_from_log_probs(completion(*tokens, ("No", logs(Yes=0.2, No=0.6))), FORM)
    assert found == pytest.approx(math.log(0.2 / 0.6))


def test_where_no_token_answers_the_first_one_s_alternatives_count_if_they_do():
    found = score_from_log_probs(completion(("I", logs(I=0.5, Yes=0.3, No=0.1))), FORM)
    assert found == pytest.approx(math.log(3))
    assert score_from_log_probs(completion(("I", logs(I=0.5, You=0.3))), FORM) is None
    assert score_from_log_probs(Completion("Yes", "stop"), FORM) is None
    assert score_from_log_probs(completion(("Yes", {"Yes": -math.inf})), FORM) is None


@given(st.floats(-9.0, 0.0), st.sampled_from(["No", " no", "NO", "\u0120No"]))
def test_one_side_alone_speaks_for_itself_or_not_at_all(log_prob, spelled):
    for form, sign in ((FORM, -1), (NEGATED, 1)):
        found = read_log_probs(completion((spelled, {spelled: log_prob})), form)
        likelier = math.exp(log_prob) > 0.5
        assert (found is not None) == likelier, "the rest may be all the other side's"
        if found is not None:
            assert sign * found.nats > 0 and math.isfinite(found.nats)
            assert found.at_most == (sign < 0), "a bound from above approves nothing"


@pytest.mark.parametrize(
    "tokens",
    [
        [("<think>", {"<think>": 0.0, "Yes": -9.0}), ("Yes", {"Yes": -0.1, "No": -3.0})],
        [("I", {"I": -0.1}), (" would not say", {}), (" yes", {" yes": -0.1, " no": -3.0})],
    ],
)
def test_a_word_within_thoughts_or_a_sentence_is_no_answer(tokens):
    assert score_from_log_probs(completion(*tokens), FORM) is None


def test_the_tokens_of_reasoning_given_apart_answer_nothing():
    tokens = completion(("Yes", logs(Yes=0.9)), (" it is", logs(x=0.9)), ("No", logs(No=0.9)))
    for text, sign in (("No", -1), ("", None), ("Nothing of these", None)):
        reply = Completion(text, "stop", tokens.tokens, reasoning="Yes it is")
        found = score_from_log_probs(reply, FORM)
        assert found is None if sign is None else sign * found > 0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Yes", 1.0), ("no.", -1.0), ("**Yes**, it is", 1.0), ("Answer: No", -1.0),
        ("<think>Yes or no? Yes.</think>\nNo", -1.0), ("I cannot say yes", None), ("", None),
        ("<think>Yes", None), ("Yesterday", None), ("answer yes", 1.0), ("Yes or no?", None),
        ("No/Yes", None), ("**No** and yes", None), ("The answer is: No.", -1.0), 
        ("__No__", -1.0), ("$\\boxed{\\text{No}}$", -1.0), ("Response: Yes", 1.0), ("No-one", None),
        ("No’s", None), ('{"judgment": "No"}', -1.0), ("<reasoning>Yes</reasoning>No", -1.0),
        ("<Think>Yes</Think>No", -1.0), ("◁think▷Yes◁/think▷No", -1.0), ("<thought>Yes", None),
        ("Yes | No", None), ("Yes. No.", None), ("Yes, no, maybe", None), ("Yes (no)", None),
        ("Yes - No", None), ("yes_no", None), ("Yes\\No", None), ("No\n\nYes", None),
        ("Yes, no harm is in it", 1.0), ("The correct answer is No", -1.0), ("Choice: No", -1.0),
        ("My verdict: Yes", 1.0), ("Yes. No harm in it.", 1.0), ("The answer is not yes", None),
    ],
)  # fmt: skip
def test_text_answers_with_its_first_word_or_not_at_all(text, score):
    assert score_from_text(text, FORM) == score
    assert score_from_text(text, NEGATED) == (None if score is None else -score)


def test_reasoning_and_answer_come_apart_as_they_were_put_together():
    assert split_reasoning(with_reasoning("Why?", "So.")) == ("Why?", "So.")
    assert split_reasoning(with_reasoning(" ", "So.")) == ("", "So.")
    assert split_reasoning("opened elsewhere</think>So.") == ("opened elsewhere", "So.")
    assert split_reasoning("<think>never closed") == ("never closed", "")
    assert split_reasoning("It's over, isn't it?</think>It's so.")[1] == "It's so."
    assert split_reasoning('Say "yes".\n</think>\n"Yes."') == ('Say "yes".', '"Yes."')


@pytest.mark.parametrize(
    "answer",
    [
        "Models write <think>…</think> before they answer.",
        'Use `re.sub(r"<think>.*?</think>", "", text)`.',
        """```python\nafter = re.sub(r"^.*?</think>\\s*", "", text)\n```""",
        """after = re.sub(r'^.*?</think> *', '', text)""",
        'TAG = "</think>\\n"',
    ],
)
def test_an_answer_about_reasoning_is_said_whole(answer):
    assert split_reasoning(answer) == ("", answer)
