"""Fixtures that write tiny models (tiny_models.py) as directories and GGUF files."""

import json

import jax.numpy as jnp
import pytest
from tiny_models import CONFIGS, LLAMA, random_params, tiny_tokenizer, write_gguf

from emergent_alignment.models.export import write_safetensors


@pytest.fixture
def tokenizer():
    """A fast byte-level tokenizer with a chat template."""
    return tiny_tokenizer()


@pytest.fixture(params=CONFIGS)
def config(request):
    """Each tiny architecture in turn."""
    return CONFIGS[request.param]


@pytest.fixture
def model_directory(tmp_path, tokenizer):
    """A function that writes a tiny model's directory and returns it with its parameters."""

    def write(config=LLAMA, name="model", dtype=jnp.float32, **options):
        params = random_params(config, dtype)
        return write_safetensors(tmp_path / name, config, params, tokenizer, **options), params

    return write


@pytest.fixture
def edit_json():
    """A function that changes fields of a JSON file; a value of None removes the field."""

    def edit(path, **changes):
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return edit


@pytest.fixture
def gguf_file(tmp_path):
    """A function that writes a tiny GGUF file and returns its path and parameters."""

    def write(config=LLAMA, name="tiny.gguf", **changes):
        return write_gguf(tmp_path / name, config, **changes)

    return write
