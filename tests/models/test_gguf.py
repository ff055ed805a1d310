"""GGUF files give the config, parameters and errors that their content deserves."""

import dataclasses
import struct
import sys

import gguf
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import CONFIGS, LLAMA, assert_same_tree, byte_tokenizer_metadata, gguf_tensors

from emergent_alignment.errors import UserError
from emergent_alignment.models import rope
from emergent_alignment.models.checkpoint import read_parameters
from emergent_alignment.models.config import RopeScaling
from emergent_alignment.models.gguf_file import GGUFFile
from emergent_alignment.models.gguf_reader import reader_class
from emergent_alignment.models.loading import end_token_ids, read_model

Q8 = gguf.GGMLQuantizationType.Q8_0
IQ = gguf.GGMLQuantizationType.IQ2_XXS


def assert_refused(path, said, read=False):
    """Opening (or reading) fails with one line that names the file and says this."""
    with pytest.raises(UserError, match=said) as caught:
        file = GGUFFile(path)
        if read:
            read_parameters(file, file.config, dtype=np.float32)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_comes_back_bit_for_bit(gguf_file, name):
    path, params = gguf_file(CONFIGS[name])
    config, found, _ = read_model(path, dtype=jnp.float32)
    assert config == CONFIGS[name]
    assert_same_tree(found, params)


def test_quantised_tensors_are_dequantised(gguf_file):
    weights = np.random.default_rng(0).normal(size=(300, 32)).astype(np.float32)
    config = dataclasses.replace(LLAMA, hidden_size=32, head_dim=8)
    path, params = gguf_file(config, tensors={"token_embd.weight": (weights, Q8)})
    file = GGUFFile(path)
    found = read_parameters(file, file.config, dtype=np.float32)
    expected = gguf.dequantize(gguf.quantize(weights, Q8), Q8)
    np.testing.assert_array_equal(found["embedding"], expected)
    assert abs(expected - weights).max() < 0.05
    np.testing.assert_array_equal(found["unembedding"], params["unembedding"])


@pytest.mark.parametrize("endianess", gguf.GGUFEndian)
def test_metadata_is_what_the_package_s_own_reader_makes_of_it(tmp_path, endianess):
    words = ["", "é ▁", *(str(number) * (number % 40) for number in range(500))]
    arrays = {"none": [], "words": words, "whole": [-3, 2**30], "real": [0.1, -1e9]}
    arrays |= {"flags": [True, False, True]}
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama", endianess=endianess)
    for name, values in arrays.items():
        writer.add_array(name, values)
    writer.add_string("last", "the end")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    ours, theirs = (
        {name: field.contents() for name, field in kind(tmp_path / "a.gguf").fields.items()}
        for kind in (reader_class(gguf), gguf.GGUFReader)
    )
    assert ours == theirs
    assert ours["words"] == words and ours["flags"] == arrays["flags"]


def test_the_vocabulary_is_as_large_as_the_embedding(gguf_file):
    path, _ = gguf_file(metadata={"llama.vocab_size": 265})
    assert GGUFFile(path).config.vocab_size == 300


@pytest.mark.parametrize(
    ("metadata", "scaling"),
    [
        ({"rope.scaling.type": "none"}, None),
        (
            {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
            RopeScaling("linear", 4.0),
        ),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 32,
            },
            RopeScaling("yarn", 4.0, 32, beta_fast=32.0, beta_slow=1.0),
        ),
    ],
)
def test_rope_scaling_comes_from_metadata(gguf_file, metadata, scaling):
    path, _ = gguf_file(metadata={f"llama.{key}": value for key, value in metadata.items()})
    assert GGUFFile(path).config.rope_scaling == scaling


def test_llama3_scaling_comes_from_its_tensor(gguf_file):
    scaling = RopeScaling("llama3", 32.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)
    config = dataclasses.replace(LLAMA, head_dim=64, rope_theta=500000.0, rope_scaling=scaling)
    plain, _ = rope.rope_frequencies(dataclasses.replace(config, rope_scaling=None))
    divisors = rope.llama3_divisors(plain, scaling).astype(np.float32)
    path, params = gguf_file(config, tensors={"rope_freqs.weight": divisors})
    file = GGUFFile(path)
    assert file.config == config
    assert_same_tree(read_parameters(file, config, dtype=np.float32), params)


def test_a_llama_with_a_window_is_a_mistral(gguf_file):
    path, _ = gguf_file(CONFIGS["mistral"])
    assert GGUFFile(path).config.family == "mistral"
    path, _ = gguf_file(metadata={"llama.attention.sliding_window": 0}, name="other.gguf")
    assert GGUFFile(path).config.family == "llama"


def test_the_end_token_and_known_end_tokens_end_an_answer(gguf_file):
    path, _ = gguf_file()
    _, _, tokenizer = read_model(path, dtype=jnp.float32)
    assert end_token_ids(path, tokenizer) == (264, 262)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metadata": {"llama.block_count": None}}, "llama.block_count is missing"),
        (
            {"metadata": {"llama.attention.head_count_kv": [2, 2, 1]}},
            r"is \[2, 2, 1\], not one number",
        ),
        ({"metadata": {"llama.attention.head_count": "4"}}, "is 4, not one number"),
        ({"metadata": {"llama.attention.head_count": 0}}, "num_heads is 0"),
        ({"metadata": {"llama.rope.dimension_count": 3}}, "rope.dimension_count is 3 of 6"),
        ({"metadata": {"llama.rope.scaling.type": "longrope"}}, "rope scaling is 'longrope'"),
        ({"metadata": {"split.count": 3}}, "one of 3 parts.*llama-gguf-split --merge"),
        ({"tensors": {"token_embd.weight": None}}, "token_embd.weight is missing"),
        ({"tensors": {"rope_freqs.weight": np.ones(7, np.float32)}}, r"shape \[7\]"),
    ],
)
def test_what_cannot_be_used_is_refused_when_opened(gguf_file, options, said):
    path, _ = gguf_file(**options)
    assert_refused(path, said)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"blk.1.ffn_up.weight": None}, "model.layers.1.mlp.up_proj.weight is missing"),
        ({"output_norm.weight": np.ones(5, np.float32)}, r"model.norm.weight has shape \[5\]"),
        ({"blk.0.ffn_gate_exps.weight": np.ones((2, 3), np.float32)}, "blk.0.ffn_gate_exps.weight"),
        ({"blk.1.attn_q.bias": np.ones(24, np.float32)}, "blk.1.attn_q.bias"),
    ],
)
def test_tensors_that_do_not_fit_are_named(gguf_file, tensors, said):
    path, _ = gguf_file(tensors=tensors)
    assert_refused(path, said, read=True)


def test_an_unsupported_architecture_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "gemma.gguf", "gemma4")
    writer.add_tensor("token_embd.weight", np.ones((3, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert_refused(
        tmp_path / "gemma.gguf", "'gemma4'; supported are gemma2, gemma3, .*, llama, .*qwen2"
    )


def test_a_quantisation_that_cannot_be_undone_is_named(gguf_file, monkeypatch):
    path, _ = gguf_file()
    file = GGUFFile(path)

    def cannot(data, kind):
        raise NotImplementedError(kind)

    monkeypatch.setattr(gguf, "dequantize", cannot)
    with pytest.raises(UserError, match="stored as F32, which cannot be undone.*Q8_0"):
        read_parameters(file, file.config, dtype=np.float32)


@pytest.mark.parametrize("kept", [0, 3, 30, 2000, -1000, -1])
def test_a_cut_file_is_named(gguf_file, kept):
    path, _ = gguf_file()
    path.write_bytes(path.read_bytes()[:kept])
    assert_refused(path, "not a complete GGUF file.*Download it again", read=True)


def test_a_missing_file_is_named(tmp_path):
    assert_refused(tmp_path / "none.gguf", "no such file")


def test_no_broken_file_ends_in_anything_but_a_user_error(gguf_file):
    path, _ = gguf_file()
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole)
        for position in random.integers(0, 1200, size=3):
            broken[position] = random.integers(256)
        path.write_bytes(broken)
        try:
            read_model(path, dtype=jnp.float32)
        except UserError as error:
            assert "\n" not in str(error)


def test_without_the_gguf_package_the_extra_is_named(gguf_file, monkeypatch):
    path, _ = gguf_file()
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert_refused(path, r"pip install 'emergent-alignment\[gguf\]'")


def test_query_rows_are_not_permuted_for_qwen(gguf_file):
    config = CONFIGS["qwen2"]
    path, params = gguf_file(config)
    stored = gguf_tensors(config, params)["blk.0.attn_q.weight"]
    np.testing.assert_array_equal(stored.T, params["layers"]["query"]["kernel"][0])
    read = GGUFFile(path).read
    np.testing.assert_array_equal(
        read("model.layers.0.self_attn.q_proj.weight", (slice(None), slice(None))), stored
    )


def test_byte_tokenizer_metadata_fits_the_tiny_vocabulary():
    assert len(byte_tokenizer_metadata()["tokens"]) <= LLAMA.vocab_size


@pytest.mark.parametrize(
    ("keys", "scaling"),
    [
        ({"scale_linear": 4.0}, RopeScaling("linear", 4.0)),
        ({"scaling.factor": 4.0}, RopeScaling("linear", 4.0)),
        ({"scaling.factor": 4.0, "scale_linear": 2.0}, RopeScaling("linear", 4.0)),
        ({"scaling.type": "linear", "scale_linear": 2.0}, RopeScaling("linear", 2.0)),
        ({"scaling.type": "none", "scaling.factor": 4.0}, None),
        ({"scaling.type": "linear", "scaling.factor": 0.0}, None),
        ({"scaling.type": "linear"}, None),
        ({"scaling.factor": 1.0}, None),
        (
            {"scaling.type": "yarn", "scale_linear": 4.0},
            RopeScaling("yarn", 4.0, 128, beta_fast=32.0, beta_slow=1.0),
        ),
    ],
)
def test_rope_scaling_has_older_keys_and_defaults_as_in_llama_cpp(gguf_file, keys, scaling):
    path, _ = gguf_file(metadata={f"llama.rope.{key}": value for key, value in keys.items()})
    assert GGUFFile(path).config.rope_scaling == scaling


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"scaling.factor": -1.0}, "factor is -1.0"),
        ({"scaling.factor": float("nan")}, "no finite number"),
        (
            {
                "scaling.type": "yarn",
                "scaling.factor": 2.0,
                "scaling.original_context_length": 0,
            },
            "original_max_positions of the rope scaling is 0",
        ),
        ({"freq_base": 0.0}, "the rope's base is 0.0"),
    ],
)
def test_a_rope_that_cannot_be_is_refused(gguf_file, keys, said):
    path, _ = gguf_file(metadata={f"llama.rope.{key}": value for key, value in keys.items()})
    assert_refused(path, said)


@pytest.mark.parametrize("kind", ["tensors", "fields", "items", "lists", "text"])
def test_what_a_header_announces_is_bounded_whatever_the_files_size(gguf_file, kind):
    """Zeros to read for it lie behind the header, as in a file of many gigabytes."""
    path, _ = gguf_file()
    content = bytearray(path.read_bytes())
    array = content.index(b"tokenizer.ggml.tokens") + 21 + 4  # of kind (4 bytes), count (8)
    if kind == "lists":
        nested = struct.pack("<IQ", 9, 1) * 2000
        content[array : array + 12] = struct.pack("<IQ", 9, 1) + nested
    else:
        place = {"tensors": 8, "fields": 16, "items": array + 4, "text": 24}[kind]
        struct.pack_into("<Q", content, place, 1 << 27)
    content += bytes(1 << 16)
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(1 << 36)  # sparse
    assert_refused(path, "a list of lists" if kind == "lists" else f"announces.*{1 << 27}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": [1, 2, 3]}, "holds no vocabulary"),
        ({"merges": [1, 2, 3]}, "holds no merges"),
        ({"model": "llama", "scores": ["a"] * 265}, "tokens have no scores"),
        ({"eos_token_id": 5000}, "eos_token_id is 5000"),
    ],
)
def test_tokenizer_metadata_of_other_types_is_named(gguf_file, changes, said):
    path, _ = gguf_file(tokenizer=byte_tokenizer_metadata() | changes)
    with pytest.raises(UserError, match=said):
        read_model(path, dtype=jnp.float32)
