"""The index finds what comparing with every text finds, and compares with far fewer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_alignment.self_align.instructions import similar
from emergent_alignment.self_align.instructions.rouge import rouge_l
from emergent_alignment.self_align.instructions.similar import Similar, SimilarTexts


def brute_force(texts, words, threshold) -> Similar | None:
    scored = [Similar(place, rouge_l(text, words)) for place, text in enumerate(texts)]
    best = max(scored, key=lambda found: (found.score, -found.place), default=None)
    return best if best is not None and best.score > threshold else None


@st.composite
def streams_of_texts(draw) -> list[list[str]]:
    """Texts of few and of many different words, with repetitions, many of them an earlier one
    with words changed, taken out or put in."""
    vocabulary = draw(st.sampled_from([2, 6, 40]))
    word = st.integers(0, vocabulary).map("w{}".format)
    texts: list[list[str]] = []
    for _ in range(draw(st.integers(1, 40))):
        if texts and draw(st.booleans()):
            text = list(texts[draw(st.integers(0, len(texts) - 1))])
            for _ in range(draw(st.integers(0, 4))):
                at = draw(st.integers(0, len(text)))
                text[at : at + draw(st.integers(0, 2))] = draw(st.lists(word, max_size=2))
        else:
            text = draw(st.lists(word, max_size=20))
        texts.append(text)
    return texts


@pytest.mark.parametrize("first_size", [2, 256], ids=["reordered often", "never"])
@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.7, 1.0])
@settings(max_examples=30)
@given(texts=streams_of_texts())
def test_the_index_misses_nothing(first_size, threshold, texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similar, "_FIRST_SIZE", first_size)
        index = SimilarTexts(threshold)
        for place, text in enumerate(texts):
            assert index.most_similar(text) == brute_force(texts[:place], text, threshold)
            index.add(text)
        assert len(index) == len(texts)


def test_the_exact_threshold_is_not_similar_and_a_word_more_is():
    kept = [str(i) for i in range(10)]
    index = SimilarTexts(0.7)
    index.add(kept)
    assert index.most_similar(kept[:7] + ["x", "y", "z"]) is None
    assert index.most_similar(kept[:8] + ["x", "y"]) == Similar(0, 0.8)


def test_of_equally_similar_texts_the_first_is_named():
    index = SimilarTexts(0.5)
    for text in ("a b c x", "a b c y", "a b c z"):
        index.add(text.split())
    assert index.most_similar("a b c q".split()) == Similar(0, 0.75)


def test_few_of_many_texts_are_compared(monkeypatch):
    """Texts over shared words, all different: an index that compared with most would be slow, and
    nothing else in this file would notice."""
    draws = np.random.default_rng(0)
    ranks = 600 ** draws.random((1600, 8))  # as Zipf's law has it
    texts = [
        [*"write some words about the".split(), *(f"w{rank:.0f}" for rank in row)] for row in ranks
    ]
    compared = 0

    def counted(bits, words):
        nonlocal compared
        compared += 1
        return real(bits, words)

    real = similar.longest_common
    index = SimilarTexts(0.7)
    for text in texts:
        index.add(text)
    monkeypatch.setattr(similar, "longest_common", counted)
    for text in texts[::16]:
        assert index.most_similar(text).score == 1.0
    assert compared < 0.02 * len(texts[::16]) * len(texts)
