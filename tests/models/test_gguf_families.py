"""GGUF files of every family are read as its safetensors are, from files that are written by the
rules of llama.cpp's converter (tests/gguf_converter.py)."""

import json

import gguf
import jax.numpy as jnp
import numpy as np
import pytest
from gguf_converter import ARCHITECTURES, stated, write_converted
from safetensors.numpy import save_file
from tiny_models import assert_same_tree, byte_tokenizer_metadata

from emergent_alignment.models import names
from emergent_alignment.models.checkpoint import SafetensorsSource, read_parameters
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.families import FAMILIES
from emergent_alignment.models.gguf_file import GGUFFile


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

    def write(family, changes=None, kinds=None, **other):
        content = stated(family, **other)
        tensors = random_tensors(ModelConfig.from_huggingface(content))
        directory = tmp_path / family
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps(content))
        save_file(tensors, directory / "model.safetensors")
        path = tmp_path / f"{family}.gguf"
        tokens = byte_tokenizer_metadata()
        return directory, write_converted(path, content, tensors, tokens, changes, kinds)

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
