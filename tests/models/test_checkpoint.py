"""Safetensors come back as they were written, a leaf at a time, and broken ones are named."""

import dataclasses
import json
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import CONFIGS, LLAMA, assert_same_tree, random_params

from emergent_alignment.errors import UserError
from emergent_alignment.models import names
from emergent_alignment.models.checkpoint import SafetensorsSource, read_json, read_parameters
from emergent_alignment.models.config import ModelConfig


def read(directory, config=LLAMA, dtype=jnp.float32):
    """The parameters in a directory."""
    return read_parameters(SafetensorsSource(directory), config, dtype=dtype)


def rewrite(directory, **changes):
    """Write model.safetensors again with tensors changed, added, or removed where None."""
    path = directory / "model.safetensors"
    tensors = {k: v for k, v in (load_file(path) | changes).items() if v is not None}
    save_file(tensors, path, metadata={"format": "pt"})


def assert_refused(directory, said, config=LLAMA):
    """Reading fails with one line that names a path and says this."""
    with pytest.raises(UserError, match=said) as caught:
        read(directory, config)
    assert str(caught.value).startswith(str(directory))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("max_shard_bytes", [10**9, 20_000, 1])
def test_written_parameters_come_back_bit_for_bit(model_directory, name, max_shard_bytes):
    directory, params = model_directory(CONFIGS[name], max_shard_bytes=max_shard_bytes)
    assert (directory / "model.safetensors").exists() == (max_shard_bytes == 10**9)
    assert_same_tree(read(directory, CONFIGS[name]), params)


@pytest.mark.parametrize("stored", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("wanted", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_parameters_are_held_in_the_dtype_asked_for(model_directory, stored, wanted):
    directory, params = model_directory(dtype=stored)
    found = read(directory, dtype=wanted)
    assert found["embedding"].dtype == wanted
    expected = params["layers"]["gate"]["kernel"].astype(wanted)
    np.testing.assert_array_equal(found["layers"]["gate"]["kernel"], expected)


def test_kernels_are_transposed_from_the_file(model_directory):
    directory, params = model_directory()
    stored = load_file(directory / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    np.testing.assert_array_equal(stored.T, params["layers"]["up"]["kernel"][1])


class MadeUpSource:
    """Tensors that cost nothing until they are read."""

    def __init__(self, config):
        """Know the names and shapes that `config` asks for."""
        shapes = names.parameter_shapes(config)
        self._shapes = {
            row.huggingface.format(layer=layer): names.file_shape(row, shapes[path])
            for path, row in names.tensor_names(config).items()
            for layer in range(config.num_layers if row.stacked else 1)
        }

    def names(self):
        """Every name."""
        return self._shapes

    def where(self, name):
        """Nowhere."""
        return "nowhere"

    def shape(self, name):
        """The shape that was asked for."""
        return self._shapes[name]

    def read(self, name, part):
        """Zeros in the dtype of most checkpoints."""
        sizes = [len(range(size)[cut]) for size, cut in zip(self._shapes[name], part)]
        return np.zeros(sizes, ml_dtypes.bfloat16)


def whole(shape):
    """The index of all of a leaf."""
    return tuple(slice(0, size) for size in shape)


BIG = dataclasses.replace(LLAMA, hidden_size=240, intermediate_size=960, num_layers=16, head_dim=60)


def peak_bytes_of_reading(place):
    """Python's peak memory while a model of 16 layers is read with `place`."""
    source = MadeUpSource(BIG)
    tracemalloc.start()
    params = read_parameters(source, BIG, dtype=np.float32, place=place)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, params


def test_reading_holds_the_model_and_no_second_copy():
    peak, params = peak_bytes_of_reading(lambda path, shape, read: read(whole(shape)))
    tensor, model = 240 * 960 * 2, sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert model <= peak < model + 2 * tensor + 200_000


def test_host_memory_holds_one_leaf_when_leaves_go_to_a_device():
    moved = []

    def move(path, shape, read):
        moved.append(read(whole(shape)).nbytes)
        return jnp.zeros(())

    peak, _ = peak_bytes_of_reading(move)
    tensor = 240 * 960 * 2
    assert max(moved) <= peak < max(moved) + 2 * tensor + 200_000 < sum(moved) / 2


def test_place_receives_every_leaf_by_its_path(model_directory):
    directory, params = model_directory()
    seen = {}

    def see(path, shape, read):
        return seen.setdefault(path, read(whole(shape)))

    read_parameters(SafetensorsSource(directory), LLAMA, dtype=np.float32, place=see)
    assert seen.keys() == names.parameter_shapes(LLAMA).keys()
    np.testing.assert_array_equal(
        seen["layers", "query", "kernel"], params["layers"]["query"]["kernel"]
    )


@pytest.mark.parametrize("kept_bytes", [0, 4, 100, -1])
def test_a_cut_file_is_named(model_directory, kept_bytes):
    directory, _ = model_directory()
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept_bytes])
    assert_refused(directory, "model.safetensors: not a complete safetensors file.*again")


def test_a_git_lfs_pointer_is_named_with_its_remedy(model_directory):
    directory, _ = model_directory()
    (directory / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid x\n"
    )
    assert_refused(directory, "git lfs pull")


def test_a_missing_tensor_is_named(model_directory):
    directory, _ = model_directory()
    rewrite(directory, **{"model.layers.2.mlp.up_proj.weight": None})
    assert_refused(directory, r"tensor model.layers.2.mlp.up_proj.weight is missing")


def test_a_shape_that_does_not_fit_is_named_with_both_shapes(model_directory):
    directory, _ = model_directory()
    rewrite(directory, **{"model.layers.0.self_attn.k_proj.weight": np.zeros((12, 23), np.float32)})
    assert_refused(
        directory, r"k_proj.weight has shape \[12, 23\], but the config asks for \[12, 24\]"
    )


def test_tensors_that_would_be_left_out_are_refused(model_directory):
    directory, _ = model_directory(CONFIGS["llama_biased"])
    assert_refused(directory, r"21 tensors have no place.*model.layers.0.mlp.down_proj.bias", LLAMA)


def test_old_rotary_buffers_and_copies_of_tied_embeddings_do_no_harm(model_directory):
    config = CONFIGS["llama_tied"]
    directory, params = model_directory(config)
    copies = {
        "lm_head.weight": np.asarray(params["embedding"]),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32),
    }
    rewrite(directory, **copies)
    assert_same_tree(read(directory, config), params)


def test_quantised_weights_are_refused(model_directory):
    directory, _ = model_directory()
    rewrite(directory, **{"model.norm.weight": np.zeros(24, np.int8)})
    assert_refused(directory, "holds int8 numbers")


def test_a_missing_shard_is_named(model_directory):
    directory, _ = model_directory(max_shard_bytes=20_000)
    shard = sorted(directory.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert_refused(directory, f"{shard.name}: the file is missing")


def test_a_tensor_the_index_promises_is_looked_for(model_directory):
    directory, _ = model_directory(max_shard_bytes=20_000)
    index = directory / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.extra.weight"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))
    assert_refused(directory, "model.extra.weight is missing, though")


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "line 1: not JSON"), ("[]", "JSON object"), ("{}", "weight_map is missing or empty")],
)
def test_a_broken_index_is_named(model_directory, text, said):
    directory, _ = model_directory(max_shard_bytes=20_000)
    (directory / "model.safetensors.index.json").write_text(text)
    assert_refused(directory, said)


def test_an_index_cannot_lead_out_of_its_directory(model_directory, tmp_path):
    directory, _ = model_directory(max_shard_bytes=20_000)
    outside, _ = model_directory(name="outside")
    index = directory / "model.safetensors.index.json"
    weight_map = {"model.norm.weight": f"../{outside.name}/model.safetensors"}
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert_refused(directory, "model.safetensors: the file is missing")


def test_one_file_of_all_tensors_goes_before_the_shards_of_an_index(model_directory):
    directory, _ = model_directory(max_shard_bytes=20_000)
    newer, params = model_directory(name="newer", dtype=jnp.bfloat16)
    (newer / "model.safetensors").rename(directory / "model.safetensors")
    assert_same_tree(read(directory, dtype=jnp.bfloat16), params)
    assert SafetensorsSource(directory).where("model.norm.weight").endswith("/model.safetensors")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth"])
def test_pickles_are_never_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    assert_refused(tmp_path, rf"{name}, a pickle, which is never read.*save_pretrained")


def test_a_directory_without_weights_is_named(tmp_path):
    assert_refused(tmp_path, "neither model.safetensors nor")


def test_no_broken_header_ends_in_anything_but_a_user_error(model_directory):
    directory, _ = model_directory()
    path = directory / "model.safetensors"
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(whole)
        for position in random.integers(0, 3000, size=4):
            broken[position] = random.integers(256)
        path.write_bytes(broken)
        try:
            read(directory)
        except UserError as error:
            assert "\n" not in str(error)


def test_random_params_fill_the_whole_tree(config):
    assert random_params(config)["embedding"].shape == (config.vocab_size, config.hidden_size)


@pytest.mark.parametrize("stored", ["F8_E4M3", "F8_E5M2"])
def test_float8_is_named_before_anything_is_read(model_directory, stored):
    directory, _ = model_directory()
    path = directory / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    end = len(content) - 8 - size
    header["float8"] = {"dtype": stored, "shape": [4], "data_offsets": [end, end + 4]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :] + bytes(4))
    assert_refused(directory, rf"tensor float8 is stored as {stored} \(float8\).*\.gguf file")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "not JSON that can be read"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "not JSON that can be read"),
        ('{"model_type": "llama", "vocab_size": 1e999}', "vocab_size is inf"),
    ],
)
def test_json_that_cannot_be_read_is_named(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=f"config.json: .*{said}"):
        ModelConfig.from_huggingface(
            read_json(tmp_path / "config.json")
            | {"hidden_size": 8, "num_attention_heads": 2}
            | {"num_hidden_layers": 1},
            where=str(tmp_path / "config.json"),
        )
