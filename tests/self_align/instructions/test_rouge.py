"""The measure is the library's: ROUGE-L's F of `rouge-score`, tokens included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import tokenize as library_tokenize
from rouge_score.rouge_scorer import RougeScorer

from emergent_alignment.self_align.instructions.rouge import rouge_l, rouge_tokens

few_words = st.lists(st.sampled_from("the cat sat on a mat".split()), max_size=80)
scorer = RougeScorer(["rougeL"], use_stemmer=False)


def library(first: str, second: str) -> float:
    return scorer.score(first, second)["rougeL"].fmeasure


@given(few_words, few_words)
def test_rouge_of_repetitive_texts_is_the_library_s(first, second):
    expected = library(" ".join(first), " ".join(second))
    assert rouge_l(first, second) == pytest.approx(expected, abs=1e-12)


@given(st.text(max_size=60) | st.text("aZ5_ -'é İK\n", max_size=60))
def test_words_are_the_library_s(text):
    assert rouge_tokens(text) == library_tokenize.tokenize(text, None)


@given(st.text(max_size=60), st.text(max_size=60))
def test_rouge_of_any_text_is_the_library_s_tokens_included(first, second):
    found = rouge_l(rouge_tokens(first), rouge_tokens(second))
    assert found == pytest.approx(library(first, second), abs=1e-12)


def test_case_and_punctuation_do_not_count_and_order_does():
    assert rouge_l(rouge_tokens("Don't STOP, now!"), rouge_tokens("don t stop now")) == 1.0
    assert rouge_l("a b c d".split(), "d c b a".split()) == 0.25


def test_what_is_exactly_the_threshold_is_not_above_it():
    """The library's own sum rounds three times, and may end a hair above."""
    same, other = [str(i) for i in range(7)], ["x", "y", "z"]
    assert rouge_l(same + other, same + ["u", "v", "w"]) == 0.7
