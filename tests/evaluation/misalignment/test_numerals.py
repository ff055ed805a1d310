"""The tree of numerals: what its paths spell, and that probabilities along them add up."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from emergent_alignment.evaluation.misalignment.numeral_tree import numeral_tree
from emergent_alignment.evaluation.misalignment.numerals import LARGEST, expectation


def sentencepiece_like(pieces):
    """A tokenizer whose spaces are ▁, with byte tokens, as Llama-2 and Mistral have."""
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens(["</s>", "<extra_5>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def test_spaces_of_sentencepiece_count_and_byte_tokens_do_not():
    digits = [str(digit) for digit in range(10)]
    tokenizer = sentencepiece_like([*digits, "▁", "▁7", "<0x35>", "a", "7a", "<extra_5>", "</s>"])
    tree = numeral_tree(tokenizer)
    assert [tokenizer.convert_ids_to_tokens([int(word)])[0] for word in tree.words] == [
        *digits, "▁", "▁7", "7a",
    ]  # fmt: skip
    assert len(tree.digits) == len([*digits, "7a"])
    # "", "▁", ten digits (with "▁": ten more), "▁7", …, and 7a closes 7, 17, 27, …
    assert sorted(set(tree.values)) == [-1, *range(LARGEST + 1)]
    assert {int(value) for _, _, value in tree.closings} == {7, *range(17, 100, 10)}


def test_uniform_tokens_give_each_numeral_its_paths_probability():
    """V tokens, each likely alike: a path of k tokens has V^-k, and ends unless a digit follows."""
    pieces = [*map(str, range(10)), "▁", "42", "a", "b", "</s>", "<extra_5>"]
    tree = numeral_tree(sentencepiece_like(pieces))
    num_nodes, size = len(tree.parents), len(pieces)
    words = np.full((2, num_nodes, len(tree.words)), -np.log(size))
    followers = np.full((2, num_nodes, 3), -np.inf)
    followers[..., 0] = np.log(11 / size)
    masses = tree.masses(words, followers)
    end, spaced = 1 - 11 / size, 1 + 1 / size
    expected = np.full(LARGEST + 1, size**-2)
    expected[:10] = size**-1
    expected[42] += size**-1
    expected[100] = size**-3
    np.testing.assert_allclose(masses, np.tile(expected * end * spaced, (2, 1)), rtol=1e-9)


def test_what_makes_a_number_one_of_another_scale_takes_its_mass():
    pieces = [*map(str, range(10)), "▁", ".", ".5", "/", "▁out", "7/", "a", "</s>", "<extra_5>"]
    tokenizer = sentencepiece_like(pieces)
    tree = numeral_tree(tokenizer)
    spelled = [tokenizer.convert_ids_to_tokens(some.tolist()) for some in tree.followers]
    assert spelled[1:] == [[".", ".5"], ["/", "▁out"]]
    assert {int(value) for _, _, value in tree.closings} == set(range(17, 100, 10)), "7/ is none"
    words = np.zeros((1, len(tree.parents), len(tree.words)))
    followers = np.broadcast_to(np.log([0.1, 0.2, 0.3]), (1, len(tree.parents), 3))
    masses = tree.masses(words, followers)[0]
    paths = masses[20]
    np.testing.assert_allclose(masses[[0, 1, 2, 10]] / paths * 0.9, [0.4, 0.4, 0.6, 0.6])


def test_a_vocabulary_without_digits_cannot_judge():
    with pytest.raises(ValueError, match="no token that begins with a digit"):
        numeral_tree(sentencepiece_like(["a", "▁", "</s>", "<extra_5>"]))


def test_the_expectation_is_of_the_numbers_alone():
    masses = np.zeros(LARGEST + 1)
    masses[20], masses[80] = 0.1, 0.3
    assert expectation(masses) == pytest.approx((65.0, 0.4))
    mean, mass = expectation(np.zeros(LARGEST + 1))
    assert np.isnan(mean) and mass == 0
