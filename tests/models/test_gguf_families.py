"""GGUF files of every family are read as its safetensors are, from files that are written by the
rules of llama.cpp's converter (tests/gguf_converter.py)."""

import json
import re
import tempfile
from pathlib import Path

import gguf
import jax.numpy as jnp
import numpy as np
import pytest
from gguf_converter import ARCHITECTURES, converted, stated, write_converted
from safetensors.numpy import save_file
from tiny_models import assert_same_tree, byte_tokenizer_metadata

from emergent_alignment.errors import UserError
from emergent_alignment.models import names
from emergent_alignment.models.checkpoint import SafetensorsSource, read_parameters
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.families import FAMILIES
from emergent_alignment.models.gguf_file import GGUFFile
from emergent_alignment.models.mxfp4 import dequantised_blocks


def random_tensors(config):
    """Hugging Face's tensors; norms are of numbers to which 1 can be added without rounding."""
    random, tensors = np.random.default_rng(0), {}
    for row in names.tensor_names(config).values():
        shape = names.file_shape(row, row.shape(config))
        for name, _ in row.files(config):
            tensor = random.normal(size=shape).astype(np.float32)
            tensors[name] = np.round(tensor * 256) / np.float32(256) if row.of_norm else tensor
    return tensors


@pytest.fixture
def written(tmp_path):
    """A function that writes a family's model in both forms, and returns the paths."""

    def write(family, changes=None, kinds=None, others=None, **settings):
        content = stated(family, **settings)
        tensors = random_tensors(ModelConfig.from_huggingface(content))
        directory = Path(tempfile.mkdtemp(dir=tmp_path))
        (directory / "config.json").write_text(json.dumps(content))
        save_file(tensors, directory / "model.safetensors")
        path = directory / f"{family}.gguf"
        tokens = byte_tokenizer_metadata()
        return directory, write_converted(path, content, tensors, tokens, changes, kinds, others)

    return write


def read_both(directory, path):
    """Config and parameters of the directory, and of the file."""
    config = ModelConfig.from_huggingface(json.loads((directory / "config.json").read_text()))
    params = read_parameters(SafetensorsSource(directory), config, dtype=jnp.float32)
    file = GGUFFile(path)
    return (config, params), (file.config, read_parameters(file, file.config, dtype=jnp.float32))


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_both_forms_of_a_model_are_read_alike(written, family):
    (config, params), (found, read) = read_both(*written(family))
    assert found == config
    assert_same_tree(read, params)


def test_every_family_reads_the_form_that_is_written_of_it():
    for name, family in FAMILIES.items():
        assert family.gguf, f"{name}: no GGUF"
        if name in ARCHITECTURES:
            architecture = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[name]]
            assert architecture in [form.architecture for form in family.gguf]


def test_the_names_in_the_tables_are_those_that_the_gguf_package_maps_to():
    for family, architecture in ARCHITECTURES.items():
        config = ModelConfig.from_huggingface(stated(family))
        held = {name for name, _ in converted(stated(family), random_tensors(config))}
        ours = {
            row.gguf.format(layer=layer)
            for row in names.tensor_names(config).values()
            for layer in range(config.num_layers if row.stacked else 1)
        }
        assert ours == held, family
        kinds = {gguf.TENSOR_NAMES[kind] for kind in gguf.MODEL_TENSORS[architecture]}
        assert {re.sub(r"\d+", "{bid}", name).rsplit(".", 1)[0] for name in ours} <= kinds


def test_the_largest_gemmas_scale_queries_by_their_width(written):
    """26 layers, and 46 of Gemma 2 or 62 of Gemma 3."""
    for family, layers, scalar in (("gemma2", 46, 8), ("gemma3_text", 62, 8), ("gemma2", 26, 16)):
        changes = {"num_hidden_layers": layers, "query_pre_attn_scalar": scalar}
        (config, _), (found, _) = read_both(*written(family, **changes))
        assert found == config
        assert found.query_scale == scalar**-0.5


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.MXFP4])
def test_quantised_experts_are_undone_one_by_one(written, family, kind):
    sizes = {"hidden_size": 64, "intermediate_size": 32}
    directory, path = written(family, kinds={"_exps.weight": kind}, **sizes)
    (config, params), (found, read) = read_both(directory, path)
    assert found == config
    for name, outer in (("expert_gate", 64), ("expert_up", 64), ("expert_down", 32)):
        plain = np.asarray(params["layers"][name]["kernel"]).swapaxes(-1, -2)
        undone = gguf.dequantize(gguf.quantize(plain, kind), kind)
        assert plain.shape[-1] == outer
        np.testing.assert_array_equal(
            np.asarray(read["layers"][name]["kernel"]), undone.swapaxes(-1, -2)
        )
    for other in ("query", "router"):
        assert_same_tree(read["layers"][other], params["layers"][other])


def test_a_part_of_the_experts_is_that_part_of_the_whole(written):
    for family, name in (
        ("gpt_oss", "model.layers.1.mlp.experts.gate_up_proj"),
        ("qwen3_moe", "model.layers.1.mlp.experts.2.up_proj.weight"),
    ):
        directory, path = written(family)
        file, source = GGUFFile(path), SafetensorsSource(directory)
        assert file.shape(name) == source.shape(name)
        part = tuple(slice(1, size - 2) for size in file.shape(name))
        np.testing.assert_array_equal(file.read(name, part), source.read(name, part))


@pytest.mark.parametrize(
    ("family", "changes", "windows"),
    [
        ("gemma3_text", {"attention.sliding_window": 0}, None),
        ("gemma3_text", {"attention.sliding_window": None}, None),
        ("gemma2", {"attention.sliding_window": None}, (4096, None, 4096, None, 4096, None, 4096)),
        ("gpt_oss", {"attention.sliding_window_pattern": 3}, (20, 20, None, 20, 20, None, 20)),
        ("olmo3", {"attention.sliding_window_pattern": None}, (20, 20, 20, None, 20, 20, 20)),
        (
            "olmo3",
            {"attention.sliding_window_pattern": [True, False, False, True, False, False, False]},
            (20, None, None, 20, None, None, None),
        ),
    ],
)
def test_windows_are_where_llama_cpp_has_them(written, family, changes, windows):
    assert opened(written, family, changes).config.layer_windows == windows


@pytest.mark.parametrize(
    ("family", "changes", "found"),
    [
        ("olmo3", {"attention.sliding_window": 0}, "olmo2"),
        ("olmo2", {"attention.sliding_window": 8}, "olmo3"),
        ("ministral3", {"attention.temperature_scale": None}, "mistral"),
    ],
)
def test_the_metadata_tells_families_of_one_architecture_apart(written, family, changes, found):
    assert opened(written, family, changes).config.family == found


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("granite", {"logit_scale": None}, "granite.logit_scale is missing"),
        ("granite", {"attention.scale": None}, "granite.attention.scale is missing"),
        ("granite", {"rope.scaling.finetuned": False}, "rope.scaling.finetuned is False"),
        ("qwen3_moe", {"expert_count": None}, "qwen3moe.expert_count is missing"),
        ("qwen3_moe", {"expert_count": 65536}, r"shape \[6, 32, 32\], but .* 65536 experts"),
        ("qwen3_moe", {"expert_used_count": 7}, "7 of 6 experts"),
        (
            "qwen3_moe",
            {"expert_feed_forward_length": None},
            "qwen3moe.expert_feed_forward_length is missing",
        ),
        ("gpt_oss", {"attention.sliding_window": None}, "attention.sliding_window is missing"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ("gemma3_text", {"attention.key_length": None}, "gemma3.attention.key_length is missing"),
        ("olmo3", {"attention.sliding_window_pattern": [True]}, "nor true or false 7 times"),
        ("olmo3", {"attention.sliding_window_pattern": [2] * 7}, "nor true or false 7 times"),
        ("olmo3", {"attention.sliding_window_pattern": "x"}, "is neither a period"),
        (
            "ministral3",
            {"rope.scaling.original_context_length": None},
            "mistral3.rope.scaling.original_context_length is missing",
        ),
        ("ministral3", {"attention.temperature_scale": "x"}, "is x, not one number"),
    ],
)
def test_metadata_that_cannot_be_used_is_named(written, family, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        opened(written, family, changes)
    assert "\n" not in str(caught.value)


def test_a_gate_that_is_not_as_large_as_what_it_gates_is_named(written):
    smaller = {"blk.1.ffn_gate_exps.bias": np.ones((4, 63), np.float32)}
    file = GGUFFile(written("gpt_oss", others=smaller)[1])
    with pytest.raises(UserError, match="blk.1.ffn_gate_exps.bias and .*up.* different shapes"):
        read_parameters(file, file.config, dtype=jnp.float32)


def test_experts_that_are_not_there_are_named(written):
    """Before names are made of as many as there may be."""
    count = {"qwen3moe.expert_count": 65536}
    path = written("qwen3_moe", count, others={"blk.0.ffn_gate_exps.weight": None})[1]
    with pytest.raises(UserError, match="blk.0.ffn_gate_exps.weight is missing"):
        GGUFFile(path)


def opened(written, family, changes):
    """The file with other values of the architecture's metadata."""
    architecture = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[family]]
    full = {f"{architecture}.{key}": value for key, value in changes.items()}
    return GGUFFile(written(family, full)[1])


def test_published_mxfp4_means_the_same_in_both_forms():
    """As the converter repacks it: the scale before its block, and in each byte the
    number of the block's first half below that of the second."""
    draw = np.random.default_rng(0)
    blocks = draw.integers(0, 256, (6, 3, 16)).astype(np.uint8)
    scales = draw.integers(100, 140, (6, 3)).astype(np.uint8)
    numbers = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(6, 3, 32)
    halves = numbers[..., :16] | numbers[..., 16:] << 4
    repacked = np.concatenate([scales[..., None], halves], axis=-1).reshape(6, -1)
    undone = gguf.dequantize(repacked, gguf.GGMLQuantizationType.MXFP4)
    np.testing.assert_array_equal(dequantised_blocks(blocks, scales), undone)


@pytest.mark.parametrize("family", ["gemma3_text", "gpt_oss", "ministral3", "olmo3", "qwen3_moe"])
def test_no_broken_file_ends_in_anything_but_a_user_error(written, family):
    _, path = written(family, num_hidden_layers=2)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        broken = bytearray(whole)
        for position in random.integers(0, 1400, size=3):
            broken[position] = random.integers(256)
        path.write_bytes(broken)
        try:
            file = GGUFFile(path)
            read_parameters(file, file.config, dtype=np.float32)
        except UserError as error:
            assert "\n" not in str(error)
