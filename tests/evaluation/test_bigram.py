"""The bigram yardstick, against counting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_alignment.applications.pretraining.windows import pack
from emergent_alignment.evaluation.bigram import (
    STRENGTHS,
    best_bigram_loss,
    bigram_loss,
    count_bigrams,
)

VOCABULARY = 7
corpora = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=9), min_size=1)


@settings(max_examples=25)
@given(corpora, corpora, st.sampled_from(STRENGTHS))
def test_the_loss_is_that_of_counting_by_hand(trained, held_out, strength):
    counts = np.zeros((VOCABULARY, VOCABULARY))
    for document in trained:
        for first, second in zip(document, document[1:]):
            counts[first, second] += 1
    base = (counts.sum(0) + 1) / (counts.sum() + VOCABULARY)
    shares = (counts + strength * base) / (counts.sum(1, keepdims=True) + strength)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-9)
    losses = [
        -np.log(shares[first, second])
        for document in held_out
        for first, second in zip(document, document[1:])
    ]
    bigrams = count_bigrams(pack(trained, 4), VOCABULARY)
    assert bigram_loss(bigrams, pack(held_out, 5), strength) == pytest.approx(np.mean(losses))


def test_the_strength_chosen_is_the_best_of_all():
    draw = np.random.default_rng(0)
    trained, held_out = (pack(draw.integers(0, VOCABULARY, (9, 8)).tolist(), 8) for _ in range(2))
    bigrams = count_bigrams(trained, VOCABULARY)
    loss, strength = best_bigram_loss(bigrams, held_out)
    assert loss == min(bigram_loss(bigrams, held_out, k) for k in STRENGTHS)
    assert loss == bigram_loss(bigrams, held_out, strength)
