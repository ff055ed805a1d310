"""Exports are complete or absent, load again as they were, and overwrite nothing."""

import dataclasses
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_models import CONFIGS, LLAMA, TEMPLATE, assert_same_tree, random_params

from emergent_alignment.errors import UserError
from emergent_alignment.models import export, model
from emergent_alignment.models.export import write_peft, write_safetensors
from emergent_alignment.models.loading import end_token_ids, read_model
from emergent_alignment.models.lora import LoraConfig

PEFT = {"rank": 4, "alpha": 8.0, "rank_stabilized": True, "base_name": "some/base"}


def adapters_for(config, rank=4, targets=("query", "down")):
    """Random adapters for some projections."""
    random = np.random.default_rng(1)
    kernels = random_params(config)["layers"]
    layers = config.num_layers
    return {
        name: {
            "a": jnp.asarray(random.normal(size=(layers, kernels[name]["kernel"].shape[1], rank))),
            "b": jnp.asarray(random.normal(size=(layers, rank, kernels[name]["kernel"].shape[2]))),
        }
        for name in targets
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_exported_model_reads_back_whole(model_directory, tokenizer, config, dtype):
    directory, params = model_directory(config, dtype=dtype)
    found_config, found_params, found_tokenizer = read_model(directory, dtype=dtype)
    assert found_config == config
    assert_same_tree(found_params, params)
    text = "hello world\n <|im_end|>né"
    assert found_tokenizer(text).input_ids == tokenizer(text).input_ids
    assert found_tokenizer.chat_template == TEMPLATE
    assert json.loads((directory / "config.json").read_text())["torch_dtype"] == dtype.dtype.name


def test_end_tokens_are_written_and_read(model_directory, tokenizer):
    own, _ = model_directory(name="own")
    several, _ = model_directory(name="several", end_token_ids=[264, 262])
    for directory, ids in ((own, [264]), (several, [264, 262])):
        assert end_token_ids(directory, tokenizer) == tuple(ids)
        content = json.loads((directory / "generation_config.json").read_text())
        assert content["eos_token_id"] == (ids if len(ids) > 1 else ids[0])
        assert content["pad_token_id"] == 262


def test_shards_stay_within_their_limit_and_the_index_covers_all(model_directory):
    directory, _ = model_directory(max_shard_bytes=20_000)
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    shards = sorted(directory.glob("model-*.safetensors"))
    held = {name: shard.name for shard in shards for name in load_file(shard)}
    assert held == index["weight_map"]
    sizes = [sum(tensor.nbytes for tensor in load_file(shard).values()) for shard in shards]
    assert sum(sizes) == index["metadata"]["total_size"]
    # The embedding (28,800 bytes) is larger than a shard and gets its own.
    assert sorted(sizes)[-2:] == [28_800, 28_800] and max(sorted(sizes)[:-2]) <= 20_000


def test_the_generic_tokenizer_class_has_the_name_older_transformers_know(model_directory):
    directory, _ = model_directory()
    content = json.loads((directory / "tokenizer_config.json").read_text())
    assert content["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_adapters_name_the_base_that_was_loaded_wherever_they_are_written(
    model_directory, tmp_path, monkeypatch
):
    directory, _ = model_directory(name="base")
    monkeypatch.chdir(tmp_path)
    adapted = dataclasses.replace(
        model.load("base"), lora=LoraConfig(4, 8.0), adapters=adapters_for(LLAMA)
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    written = model.export(adapted, "adapter", format="peft") / "adapter_config.json"
    assert json.loads(written.read_text())["base_model_name_or_path"] == str(directory)


def test_adapters_are_named_and_laid_out_as_peft_does(tmp_path):
    adapters = adapters_for(LLAMA)
    directory = write_peft(tmp_path / "adapter", LLAMA, adapters, **PEFT)
    tensors = load_file(directory / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * LLAMA.num_layers
    prefix = "base_model.model.model.layers.2.mlp.down_proj"
    np.testing.assert_array_equal(tensors[f"{prefix}.lora_A.weight"].T, adapters["down"]["a"][2])
    np.testing.assert_array_equal(tensors[f"{prefix}.lora_B.weight"].T, adapters["down"]["b"][2])
    content = json.loads((directory / "adapter_config.json").read_text())
    assert content["target_modules"] == ["down_proj", "q_proj"]
    assert (content["r"], content["lora_alpha"], content["use_rslora"]) == (4, 8.0, True)
    assert content["base_model_name_or_path"] == "some/base"


def write_both(directory, tokenizer):
    """The two exports, as functions."""
    return (
        lambda: write_safetensors(directory, LLAMA, random_params(LLAMA), tokenizer),
        lambda: write_peft(directory, LLAMA, adapters_for(LLAMA), **PEFT),
    )


@pytest.mark.parametrize("which", [0, 1])
def test_nothing_is_overwritten(tmp_path, tokenizer, which):
    directory = tmp_path / "used"
    directory.mkdir()
    (directory / "precious").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        write_both(directory, tokenizer)[which]()
    assert [path.name for path in tmp_path.rglob("*")] == ["used", "precious"]
    file = directory / "precious"
    with pytest.raises(UserError, match="a file of this name"):
        write_both(file, tokenizer)[which]()
    assert file.read_text() == "mine"


@pytest.mark.parametrize("which", [0, 1])
def test_an_empty_directory_and_missing_parents_are_fine(tmp_path, tokenizer, which):
    (tmp_path / "empty").mkdir()
    for directory in (tmp_path / "empty", tmp_path / "some" / "where"):
        write_both(directory, tokenizer)[which]()
        assert any(directory.glob("*.safetensors"))
        assert [path for path in directory.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("which", [0, 1])
def test_a_full_disk_leaves_nothing_behind(tmp_path, tokenizer, monkeypatch, which):
    def full(path, tensors):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_tensor_file", full)
    with pytest.raises(UserError, match="out: it cannot be written.*No space left on device"):
        write_both(tmp_path / "out", tokenizer)[which]()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("which", [0, 1])
def test_an_interruption_leaves_nothing_behind(tmp_path, tokenizer, monkeypatch, which):
    def interrupted(path, tensors):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "write_tensor_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_both(tmp_path / "out", tokenizer)[which]()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_permission_is_named(tmp_path, tokenizer):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="Permission denied"):
        write_both(tmp_path / "locked" / "out", tokenizer)[0]()


def test_trees_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, tokenizer):
    params = random_params(CONFIGS["llama_biased"])
    with pytest.raises(ValueError, match=r"params at layers.down.bias: expected None"):
        write_safetensors(tmp_path / "out", LLAMA, params, tokenizer)
    with pytest.raises(ValueError, match=r"adapters at query.a: expected \(3, 24, 8\)"):
        write_peft(tmp_path / "out", LLAMA, adapters_for(LLAMA), **PEFT | {"rank": 8})
    assert list(tmp_path.iterdir()) == []
