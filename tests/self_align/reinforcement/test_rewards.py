"""What an answer is worth: the parts of a reward, and preferences used directly."""

import numpy as np
import pytest
from tiny_chat_model import tiny_chat_tokenizer

from emergent_alignment.config import Config
from emergent_alignment.data.chat import read_chat
from emergent_alignment.errors import UserError
from emergent_alignment.generation.text import Answer
from emergent_alignment.self_align.answers.guidance import Principle
from emergent_alignment.self_align.reinforcement import rewards
from emergent_alignment.self_align.reinforcement.checks import check_reinforcement, read_guards
from emergent_alignment.self_align.reinforcement.preferences import read_to_the_end
from emergent_alignment.self_align.reinforcement.rewards import (
    Judging,
    Shaping,
    function_score,
    principle_score,
    reward_function,
)
from emergent_alignment.settings import changed


def answer(text, tokens=4, ended=True):
    return Answer(list(range(tokens)), np.zeros(tokens, np.float32), text, ended)


def test_the_parts_of_a_reward_are_what_they_say():
    shaping = Shaping(2.0, 0.5, 3.0, 0.25, 8)
    answers = [[answer("a b c d e"), answer("x y z w x y z w", 8, False)]]
    parts = shaping.parts(np.array([[1.0, 2.0]]), answers)
    np.testing.assert_allclose(parts["score"], [[1.0, 2.0]])
    np.testing.assert_allclose(parts["truncation"], [[0.0, -0.5]])
    np.testing.assert_allclose(parts["repetition"], [[0.0, -3.0 * (1 - 4 / 5)]])
    np.testing.assert_allclose(parts["length"], [[0.125, 0.25]])


def test_a_score_far_off_is_brought_near_the_others_wherever_they_lie():
    shaping = Shaping(2.0, 0.0, 0.0, 0.0, 8)
    scores = np.array([[0.0] * 15 + [100.0]], np.float32)
    answers = [[answer("a")] * 16]
    clipped = shaping.parts(scores, answers)["score"]
    assert clipped[0, -1] == scores.mean() + 2 * scores.std() < 100
    np.testing.assert_array_equal(clipped[0, :-1], 0)
    shifted = shaping.parts(scores - 500, answers)["score"]
    np.testing.assert_allclose(shifted, clipped - 500, rtol=1e-5)


def test_preference_used_directly_sums_to_nothing_and_ranks_as_the_model_does(monkeypatch):
    def longer_is_better(setup, comparisons, *, batch_size, orders):
        assert orders == "average" and all(len(one.guidelines) == 3 for one in comparisons)
        return [[0.1, len(one.first) - len(one.second), 0.0] for one in comparisons]

    monkeypatch.setattr(rewards, "compare", longer_is_better)
    principles = [Principle(i, f"rule {i}", "text") for i in (1, 2, 3)]
    score = principle_score(None, Judging(principles, principles[:1], 2), 4, "average")
    texts = ["a", "abcd", "ab"]
    prompts = [[{"role": "user", "content": "?"}]] * 2
    found = score(prompts, [[answer(t) for t in texts]] * 2, (0, 1))
    np.testing.assert_allclose(found, [[-2.0, 2.5, -0.5]] * 2)


def test_bundled_guards_are_never_negated_and_judge_every_answer():
    guards = read_guards("bundled")
    assert len(guards) == 3
    told = Judging([Principle(1, "one", "text")], guards, 1).guidelines(5, (0, 0))
    assert [one.principle for one in told[1:]] == list(guards)
    assert not any(one.negated for one in told)


def test_a_reward_is_read_off_an_end_token_whether_the_answer_ended_or_was_cut():
    chat = read_chat(tiny_chat_tokenizer())
    ended, cut = [7, 8, chat.end_token], [7, 8]
    assert read_to_the_end(ended, chat, 9) == read_to_the_end(cut, chat, 9) == ended
    assert read_to_the_end([7, 8, 9, 10], chat, 3) == ended


def brevity(conversation, answer):
    """As a config names it: fewer words than the question are worth more."""
    return len(conversation[-1]["content"].split()) - len(answer.split())


def test_a_function_that_the_config_names_scores_each_answer_of_each_prompt():
    reward = reward_function(f"python:{__name__}.brevity")
    prompts = [[{"role": "user", "content": text}] for text in ("one two three", "one")]
    answers = [[answer("a"), answer("a b c d")], [answer(""), answer("a")]]
    scores = function_score(reward)(prompts, answers, (0,))
    np.testing.assert_array_equal(scores, [[2, -1], [1, 0]])
    with pytest.raises(UserError, match=r"reinforcement.reward: the function gave nan"):
        function_score(lambda conversation, answer: float("nan"))(prompts, answers, (0,))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("best", "'best' is unknown; known: model, principles, python:"),
        ("python:no.such", "cannot"),
    ],
)
def test_a_reward_that_is_none_is_refused_before_anything(named, said):
    config = changed(Config(), {"self_align.reinforcement.reward": named})
    with pytest.raises(UserError, match=f"config.self_align.reinforcement.reward: .*{said}"):
        check_reinforcement(config)
