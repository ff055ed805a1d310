"""The ROUGE benchmark's texts and its check. No time is asserted."""

import importlib
import sys
from pathlib import Path

import pytest

from emergent_alignment.self_align.instructions import similar

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def rouge_index():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("rouge_index")
    sys.path.remove(str(BENCHMARKS))


def test_texts_are_the_same_for_a_seed_and_many_are_alike(rouge_index):
    texts = rouge_index.make_texts(600, seed=3)
    assert texts == rouge_index.make_texts(600, seed=3) != rouge_index.make_texts(600, seed=4)
    row = rouge_index.measure(texts, pair_seconds=1e-3, seed=3)
    assert 0.6 * 600 < row["kept"] < 0.95 * 600
    assert row["compared"] < 0.05 * row["pairs"]


def test_an_index_that_misses_is_found_out(rouge_index, monkeypatch):
    texts = rouge_index.make_texts(300, seed=0)
    rouge_index.check(texts, 60)
    monkeypatch.setattr(similar.SimilarTexts, "_rarest", lambda self, elements: elements[:1])
    with pytest.raises(SystemExit, match="the index misses"):
        rouge_index.check(texts, 60)
