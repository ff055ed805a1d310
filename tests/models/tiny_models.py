"""Tiny models of every family, with random weights, as trees and GGUF files."""

import dataclasses

import gguf
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from emergent_alignment.models import names
from emergent_alignment.models.config import ModelConfig

LLAMA = ModelConfig(
    family="llama",
    vocab_size=300,
    hidden_size=24,
    intermediate_size=40,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    rms_norm_eps=1e-5,
    max_positions=128,
)
CONFIGS = {
    "llama": LLAMA,
    "llama_tied": dataclasses.replace(LLAMA, tie_embeddings=True),
    "llama_biased": dataclasses.replace(LLAMA, qkv_bias=True, output_bias=True, mlp_bias=True),
    "mistral": dataclasses.replace(LLAMA, family="mistral", layer_windows=(16, 16, 16)),
    "qwen2": dataclasses.replace(LLAMA, family="qwen2", qkv_bias=True, tie_embeddings=True),
    "qwen3": dataclasses.replace(LLAMA, family="qwen3", qk_norm=True, head_dim=8),
}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"


def random_params(config, dtype=jnp.float32, seed=0):
    """A parameter tree of normal numbers."""
    random = np.random.default_rng(seed)
    leaves = {
        path: jnp.asarray(random.normal(size=shape), dtype)
        for path, shape in names.parameter_shapes(config).items()
    }
    return traverse_util.unflatten_dict(leaves)


def assert_same_tree(left, right):
    """Both trees have the same leaves, bit for bit."""
    left, right = traverse_util.flatten_dict(left), traverse_util.flatten_dict(right)
    assert left.keys() == right.keys()
    for path in left:
        np.testing.assert_array_equal(left[path], right[path], err_msg=".".join(path))


def byte_vocabulary():
    """256 byte tokens as GPT-2 spells them, some merges, and three control tokens."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("Ġ", "w"), ("o", "r"), ("Ċ", "Ġ")]
    tokens += ["".join(pair) for pair in merges]
    return [*tokens, "<|endoftext|>", "<|im_start|>", "<|im_end|>"], merges


def tiny_tokenizer():
    """A fast byte-level tokenizer with a chat template, of 265 tokens."""
    tokens, merges = byte_vocabulary()
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(tokens[-3:])
    built = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    built.chat_template = TEMPLATE
    return built


def permuted(tensor, heads):
    """llama.cpp's reordering of query and key rows, as its converter does it."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def gguf_tensors(config, params):
    """The tensors of a GGUF file by name, as llama.cpp's converter would write them."""
    leaves = traverse_util.flatten_dict(params)
    tensors = {}
    for path, row in names.tensor_names(config).items():
        stack = np.asarray(leaves[path], np.float32)
        for layer, tensor in enumerate(stack if row.stacked else stack[None]):
            tensor = tensor.T if row.transposed else tensor
            if config.family in ("llama", "mistral") and path[1:2] in (("query",), ("key",)):
                heads = config.num_heads if path[1] == "query" else config.num_kv_heads
                tensor = permuted(tensor, heads)
            tensors[row.gguf.format(layer=layer)] = np.ascontiguousarray(tensor)
    return tensors


def byte_tokenizer_metadata(pre="gpt-2", template=TEMPLATE):
    """Tokenizer metadata of the byte-level kind."""
    tokens, merges = byte_vocabulary()
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [1] * (len(tokens) - 3) + [3] * 3,
        "merges": [" ".join(pair) for pair in merges],
        "eos_token_id": len(tokens) - 1,
        "padding_token_id": len(tokens) - 3,
        "chat_template": template,
    }


def write_gguf(path, config, tokenizer=None, tensors=None, metadata=None):
    """Write a GGUF file; returns its path and its parameters.

    `tensors` and `metadata` change what is written; a value of None leaves an entry out, and a
    tensor with a type, (array, type), is quantised.
    """
    architecture = "llama" if config.family == "mistral" else config.family
    params = random_params(config)
    fields = {
        "context_length": config.max_positions,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_theta,
    }
    if config.layer_windows:
        fields["attention.sliding_window"] = config.layer_windows[0]
    fields = {f"{architecture}.{key}": value for key, value in fields.items()}
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (fields | (metadata or {})).items():
        _add_field(writer, key, value)
    for key, value in (tokenizer or byte_tokenizer_metadata()).items():
        prefix = "tokenizer" if key == "chat_template" else "tokenizer.ggml"
        _add_field(writer, f"{prefix}.{key}", value)
    for key, tensor in (gguf_tensors(config, params) | (tensors or {})).items():
        if isinstance(tensor, tuple):
            writer.add_tensor(key, gguf.quantize(*tensor), raw_dtype=tensor[1])
        elif tensor is not None:
            writer.add_tensor(key, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, params


def _add_field(writer, key, value):
    """One metadata field, in the type that llama.cpp's converter uses."""
    if value is None:
        return
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }[type(value)]
    add(key, value)
