"""GGUF files of every family are read as its safetensors are, from files that are written by the
rules of llama.cpp's converter (tests/gguf_converter.py)."""

import json

import gguf
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from gguf_converter import ARCHITECTURES, write_converted
from safetensors.numpy import save_file
from tiny_models import assert_same_tree, byte_tokenizer_metadata

from emergent_alignment.models import names
from emergent_alignment.models.checkpoint import SafetensorsSource, read_parameters
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.families import FAMILIES
from emergent_alignment.models.gguf_file import GGUFFile

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 7,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
}
YARN = {"rope_type": "yarn", "rope_theta": 3e5, "factor": 4.0}
YARN |= {"original_max_position_embeddings": 32, "beta_fast": 24.0, "beta_slow": 2.0}
BY_KIND = {"sliding_attention": {"rope_type": "default", "rope_theta": 3e5}}
# What the converter states of each family, other than it is by default.
UNUSUAL = {
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 20}
    | {"attn_logit_softcapping": 40.0, "final_logit_softcapping": 20.0},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 20}
    | {
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 3e5},
        }
    },
    "gpt_oss": {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2}
    | {"sliding_window": 20, "rope_parameters": {**YARN, "truncate": False}},
    "granite": {"embedding_multiplier": 12.0, "attention_multiplier": 0.0078125}
    | {"residual_multiplier": 0.22, "logits_scaling": 8.0},
    "ministral3": {"head_dim": 16}
    | {
        "rope_parameters": {
            **YARN,
            "mscale": 1.0,
            "mscale_all_dim": 0.5,
            "llama_4_scaling_beta": 0.2,
        }
    },
    "mistral": {"head_dim": 16, "sliding_window": None},
    "olmo2": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    "olmo3": {"sliding_window": 20, "rope_parameters": YARN | {"attention_factor": 1.25}},
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 3, "norm_topk_prob": False},
    "qwen3_moe": {"head_dim": 16, "num_experts": 6, "num_experts_per_tok": 3}
    | {"moe_intermediate_size": 32, "norm_topk_prob": True},
    "smollm3": {"rope_parameters": {"rope_type": "default", "rope_theta": 2e6}},
}


def stated(family, **changes):
    """A config.json as transformers writes it."""
    return transformers.AutoConfig.for_model(
        family, **(SIZES | UNUSUAL[family] | changes)
    ).to_dict()


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
