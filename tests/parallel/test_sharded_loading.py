"""Weights come from the files a device's part at a time, and lie where the table says."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tiny_chat_model import tiny_chat_tokenizer, write_tiny_chat_model

from emergent_alignment.errors import UserError
from emergent_alignment.models import checkpoint
from emergent_alignment.models.export import write_safetensors
from emergent_alignment.models.model import export, load
from emergent_alignment.models.placement import check_mesh
from emergent_alignment.parallel.mesh import make_mesh


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def read_bytes(monkeypatch):
    """How many bytes each read of a tensor's part gave."""
    found = []
    read = checkpoint.SafetensorsSource.read

    def counted(self, name, part):
        tensor = read(self, name, part)
        found.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(checkpoint.SafetensorsSource, "read", counted)
    return found


def test_no_part_is_read_twice_and_none_is_larger_than_a_device_holds(directory, read_bytes):
    whole = load(str(directory))
    total = sum(read_bytes)
    largest = max(read_bytes)
    read_bytes.clear()
    sharded = load(str(directory), mesh=make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
    assert sum(read_bytes) == total, "each part once, though two devices hold it"
    assert max(read_bytes) <= largest / 4
    for ours, theirs in zip(jax.tree.leaves(sharded.params), jax.tree.leaves(whole.params)):
        np.testing.assert_array_equal(ours, theirs)


def test_a_device_reads_its_own_experts(tiny_config, tiny_params, tmp_path, read_bytes):
    sizes = {"num_experts": 8, "experts_per_token": 2, "expert_size": 16}
    tokenizer = tiny_chat_tokenizer()
    config = tiny_config("qwen3_moe", **sizes, qk_norm=True, vocab_size=len(tokenizer))
    params = tiny_params(config)
    directory = write_safetensors(tmp_path / "model", config, params, tokenizer)
    load(str(directory))
    total = sum(read_bytes)
    read_bytes.clear()
    sharded = load(str(directory), mesh=make_mesh({"data": 1, "fsdp": 2, "expert": 4})).params
    assert sum(read_bytes) == total, "each part once"
    for name in ("expert_gate", "expert_down"):
        kernel = sharded["layers"][name]["kernel"]
        assert kernel.addressable_data(0).shape[1] == 2 and kernel.shape[1] == 8
    for ours, theirs in zip(jax.tree.leaves(sharded), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_export_from_a_mesh_is_that_of_one_device(directory, tmp_path):
    mesh = make_mesh({"data": 1, "fsdp": 4, "tensor": 2})
    export(load(str(directory), mesh=mesh), tmp_path / "sharded")
    export(load(str(directory)), tmp_path / "whole")
    ours, theirs = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("sharded", "whole")
    )
    assert ours == theirs


@pytest.mark.parametrize(
    "sizes,said",
    [
        ({"data": 3}, "data=3, fsdp=1, tensor=1) does not fill 8 devices; data=8, fsdp=1"),
        ({"data": -1, "fsdp": -1}, "one of them may be -1"),
        ({"data": 1, "expert": 3}, "expert=3, tensor=1) does not fill 8 devices; data=2, fsdp=1"),
        ({"data": 0}, "sizes are 1 or more"),
        ({"data": 1, "tensor": 8}, "`layers.query.kernel` has 4 heads on that axis; 1, 2, 4 would"),
    ],
)
def test_a_mesh_that_does_not_fit_is_named_with_one_that_does(directory, sizes, said):
    with pytest.raises(UserError) as caught:
        check_mesh(make_mesh(sizes), load(str(directory)).config)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_copy_of_the_model_cannot_span_slices():
    chips = [SimpleNamespace(platform="tpu", slice_index=i // 4) for i in range(8)]
    with pytest.raises(UserError, match=r"config\.mesh\.data=1: there are 2 slices") as caught:
        make_mesh({"data": 1, "fsdp": 8}, chips)
    assert "a multiple of 2" in str(caught.value)
