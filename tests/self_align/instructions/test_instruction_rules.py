"""Each rule drops what it is for, and nothing is kept that is like another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from emergent_alignment.self_align.instructions.rules import Pool, TextRules, topic_broken_by

RULES = TextRules(4, 10, ("image", "go to"))
score = RougeScorer(["rougeL"]).score


def pool(**quotas: int) -> Pool:
    return Pool(RULES, 0.7, quotas or {"any": 1000})


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Name four rivers of Africa.", None),
        ("3x + 7 = 10 has which solution?", None),
        ("", "form"),
        ("!Name four rivers of Africa.", "form"),
        ("“Name four rivers of Africa.”", "form"),
        ("Ünlü dört nehir adı söyle.", "form"),
        ("Name rivers. 2. Name seas now. 3. Name lakes.", "form"),
        ("Name four rivers.", "length"),
        ("Name " + "very " * 9 + "rivers.", "length"),
        ("Describe the attached Image for me.", "unservable"),
        ("Describe these images for me.", "unservable"),
        ("Go to the library for me.", "unservable"),
        ("Explain what imagery is in poems.", None),
    ],
)
def test_rules_of_a_text_by_itself(text, rule):
    assert RULES.broken_by(text) == rule
    fault = pool().fault(text, "any")
    assert (fault and fault.rule) == rule


def test_lengths_at_the_bounds_are_kept():
    assert RULES.broken_by("a b c d") is None and RULES.broken_by("a " * 10) is None


@pytest.mark.parametrize(
    ("topic", "rule"),
    [
        ("rain", None),
        ("ancient Roman law", None),
        ("supply & demand", None),
        ("the law of supply", "length"),
        ("", "form"),
        ("(rain)", "form"),
        ("Größe", "form"),
    ],
)
def test_rules_of_a_topic(topic, rule):
    assert topic_broken_by(topic) == rule


def test_a_text_that_comes_again_is_a_duplicate_and_one_word_less_is_similar():
    kept = pool()
    kept.keep("Name four rivers of Africa.", None)
    again = kept.fault("name FOUR rivers, of africa!", "any")
    assert (again.rule, again.like) == ("duplicate", "Name four rivers of Africa.")
    like = kept.fault("Name four rivers of Asia.", "any")
    assert (like.rule, like.like, like.score) == ("similar", "Name four rivers of Africa.", 0.8)


def test_a_kind_takes_its_quota_and_no_more():
    kept = pool(law=1, science=1)
    kept.keep("Name four rivers of Africa.", None)
    assert kept.fault("May I keep the dog?", "law") is None
    kept.keep("May I keep the dog?", "law")
    assert kept.fault("Who owns this old tree?", "law").rule == "kind_full"
    assert kept.fault("Why does ice swim well?", "science") is None


words = st.lists(st.sampled_from("a few words that come again and".split()), max_size=9)


@given(st.lists(words.map(" ".join), max_size=25))
def test_no_two_kept_texts_are_alike_by_the_library_s_measure(texts):
    kept, chosen = pool(), []
    for text in texts:
        alike = [score(other, text)["rougeL"].fmeasure > 0.7 + 1e-9 for other in chosen]
        fault = kept.fault(text, "any")
        if fault is None:
            assert not any(alike)
            kept.keep(text, "any")
            chosen.append(text)
        elif fault.rule in ("similar", "duplicate"):
            assert any(alike)
