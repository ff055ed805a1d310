"""gpt-oss as it is published: MXFP4 experts, whose gates and what they gate share a tensor."""

import json
import tracemalloc

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file
from tiny_models import assert_same_tree

from emergent_alignment.errors import UserError
from emergent_alignment.models.checkpoint import SafetensorsSource, read_parameters
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.loading import read_model
from emergent_alignment.models.mxfp4 import dequantised_blocks, mxfp4_tensors

CONFIG = ModelConfig.from_huggingface(
    {
        "model_type": "gpt_oss",
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
    }
)
EXPERTS = "model.layers.{}.mlp.experts.{}"


def number(bits: int) -> float:
    """A sign, an exponent of two bits with bias 1, and one bit behind the point."""
    sign, exponent, mantissa = bits >> 3, bits >> 1 & 3, bits & 1
    size = mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2 ** (exponent - 1)
    return -size if sign else size


def longhand(blocks, scales):
    """[rows, numbers], one number at a time."""
    rows = []
    for row, row_scales in zip(blocks, scales):
        own = []
        for block, scale in zip(row, row_scales):
            for byte in map(int, block):
                own += [number(bits) * 2.0 ** (int(scale) - 127) for bits in (byte & 15, byte >> 4)]
        rows.append(own)
    return np.array(rows)


def random_blocks(draw, *sizes):
    """Blocks and scales of [sizes…] tensors whose numbers are not far from 1."""
    blocks = draw.integers(0, 256, (*sizes, 16)).astype(np.uint8)
    return blocks, draw.integers(122, 130, sizes).astype(np.uint8)


def test_blocks_are_what_their_bits_say():
    """Every number, and scales from the least to the largest that float32 has."""
    draw = np.random.default_rng(0)
    blocks, scales = random_blocks(draw, 4, 3)
    blocks[0] = np.arange(48).reshape(3, 16) * 5 + 3
    scales[1] = 1, 127, 250
    np.testing.assert_array_equal(dequantised_blocks(blocks, scales), longhand(blocks, scales))


@pytest.fixture
def published(model_directory, edit_json):
    """A directory whose experts are MXFP4, and the parameters that are meant."""
    directory, params = model_directory(CONFIG)
    stored, draw = load_file(directory / "model.safetensors"), np.random.default_rng(1)
    params = traverse_util.flatten_dict(params)
    params = {path: np.array(leaf) for path, leaf in params.items()}
    for layer in range(2):
        for part in ("gate_up_proj", "down_proj"):
            name = EXPERTS.format(layer, part)
            experts, inputs, outputs = stored.pop(name).shape
            blocks, scales = random_blocks(draw, experts, outputs, inputs // 32)
            stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            meant = np.stack([longhand(*each).T for each in zip(blocks, scales)])
            if part == "down_proj":
                params["layers", "expert_down", "kernel"][layer] = meant
            else:
                params["layers", "expert_gate", "kernel"][layer] = meant[:, :, 0::2]
                params["layers", "expert_up", "kernel"][layer] = meant[:, :, 1::2]
    save_file(stored, directory / "model.safetensors", {"format": "pt"})
    edit_json(directory / "config.json", quantization_config={"quant_method": "mxfp4"})
    return directory, traverse_util.unflatten_dict(params)


def test_a_published_checkpoint_is_read_as_what_it_stands_for(published):
    directory, params = published
    config, found, _ = read_model(directory, dtype=jnp.float32)
    assert config == CONFIG
    assert_same_tree(found, params)


def test_any_part_of_a_leaf_is_that_part_of_the_whole(published):
    """As devices of a mesh ask for them: from within a block to within the next."""
    directory, params = published
    cuts = slice(0, 2), slice(1, 3), slice(5, 41), slice(3, 30)
    found = {}

    def place(path, shape, read):
        if len(shape) == len(cuts):
            found[path] = read(cuts)
        return np.zeros(())

    source = mxfp4_tensors(SafetensorsSource(directory))
    read_parameters(source, CONFIG, dtype=np.float32, place=place)
    assert len(found) == 3
    for path, part in found.items():
        np.testing.assert_array_equal(part, traverse_util.flatten_dict(params)[path][cuts])


class Packed:
    """One tensor of 16 experts, [256, 512], whose bytes cost nothing until they are read."""

    shapes = {"t_blocks": (16, 512, 8, 16), "t_scales": (16, 512, 8)}

    def names(self):
        """Of its blocks and scales."""
        return self.shapes

    def shape(self, name):
        """As it is."""
        return self.shapes[name]

    def read(self, name, part):
        """Zeros."""
        sizes = [len(range(size)[cut]) for size, cut in zip(self.shapes[name], part)]
        return np.zeros(sizes, np.uint8)


def test_reading_holds_one_tensor_and_one_expert_in_the_making():
    source = mxfp4_tensors(Packed())
    whole = tuple(slice(0, size) for size in source.shape("t"))
    tracemalloc.start()
    read = source.read("t", whole)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.shape == (16, 256, 512) and read.dtype == ml_dtypes.bfloat16
    assert read.nbytes <= peak < read.nbytes + 4 * 4 * 256 * 512


@pytest.mark.parametrize(
    ("end", "broken", "said"),
    [
        ("_scales", np.zeros((3, 64, 1), np.uint8), r"16 bytes a scale"),
        ("_blocks", np.zeros((3, 64, 2, 16), np.int8), r"those of MXFP4 are uint8"),
        ("_scales", None, r"gate_up_proj is missing"),
    ],
)
def test_what_is_no_mxfp4_is_refused(published, end, broken, said):
    directory, _ = published
    stored = load_file(directory / "model.safetensors")
    name = EXPERTS.format(1, "gate_up_proj") + end
    del stored[name]
    if broken is not None:
        stored[name] = broken
    save_file(stored, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=said):
        read_model(directory, dtype=jnp.float32)


def test_an_export_is_in_the_layout_that_was_read(model_directory):
    """In no quantisation: gates and what they gate in turns, [in, out]."""
    directory, params = model_directory(CONFIG)
    stored = load_file(directory / "model.safetensors")
    layers = params["layers"]
    for part, own in (("gate", slice(0, None, 2)), ("up", slice(1, None, 2))):
        for leaf, end in (("kernel", ""), ("bias", "_bias")):
            held = stored[EXPERTS.format(1, f"gate_up_proj{end}")][..., own]
            np.testing.assert_array_equal(held, layers[f"expert_{part}"][leaf][1])
    assert "quantization_config" not in json.loads((directory / "config.json").read_text())
    assert_same_tree(read_model(directory, dtype=jnp.float32)[1], params)
