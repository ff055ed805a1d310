"""ModelConfig says what config.json says, both ways, and refuses what it cannot say."""

import dataclasses

import pytest
import transformers
from tiny_models import CONFIGS, LLAMA

from emergent_alignment.errors import UserError
from emergent_alignment.models.config import ModelConfig, RopeScaling

LLAMA_3_2 = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": True,
}
QWEN_2_5 = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "tie_word_embeddings": True,
}
QWEN_3 = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "rope_theta": 1000000,
    "rms_norm_eps": 1e-06,
    "attention_bias": False,
    "sliding_window": None,
    "tie_word_embeddings": True,
}
MISTRAL = {
    "model_type": "mistral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
}
PUBLISHED = [LLAMA_3_2, QWEN_2_5, QWEN_3, MISTRAL]
CLASSES = {
    "llama": transformers.LlamaConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
REQUIRED = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


def as_transformers(content):
    """The config object that transformers makes of a config.json."""
    return CLASSES[content["model_type"]].from_dict(dict(content))


def test_llama_fields_are_read():
    scaling = RopeScaling("llama3", 32.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)
    assert ModelConfig.from_huggingface(LLAMA_3_2) == ModelConfig(
        family="llama",
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_layers=16,
        num_heads=32,
        num_kv_heads=8,
        head_dim=64,
        rope_theta=500000.0,
        rope_scaling=scaling,
        rms_norm_eps=1e-5,
        tie_embeddings=True,
        qkv_bias=False,
        output_bias=False,
        mlp_bias=False,
        qk_norm=False,
        layer_windows=None,
        max_positions=131072,
    )


def test_the_defaults_are_a_plain_llama():
    read = ModelConfig.from_huggingface(transformers.LlamaConfig())
    sizes = "vocab_size hidden_size intermediate_size num_layers num_heads num_kv_heads head_dim"
    given = {name: getattr(read, name) for name in sizes.split()}
    assert ModelConfig("llama", **given) == read


def test_families_differ_in_biases_norms_and_windows():
    qwen2, qwen3, mistral = (ModelConfig.from_huggingface(c) for c in (QWEN_2_5, QWEN_3, MISTRAL))
    assert (qwen2.qkv_bias, qwen2.output_bias, qwen2.qk_norm, qwen2.head_dim) == (
        True,
        False,
        False,
        64,
    )
    assert (qwen3.qkv_bias, qwen3.output_bias, qwen3.qk_norm, qwen3.head_dim) == (
        False,
        False,
        True,
        128,
    )
    assert (qwen2.layer_windows, qwen3.layer_windows) == (None, None)
    assert mistral.layer_windows == (4096,) * 4


def test_qwen_windows_follow_layer_types_or_the_first_windowed_layer():
    sliding = {**QWEN_2_5, "num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 64}
    by_number = ModelConfig.from_huggingface({**sliding, "max_window_layers": 1})
    assert by_number.layer_windows == (None, 64, 64, 64)
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    by_kind = ModelConfig.from_huggingface({**sliding, "layer_types": kinds})
    assert by_kind.layer_windows == (64, None, 64, None)
    for config in (by_number, by_kind):
        assert ModelConfig.from_huggingface(config.to_huggingface()) == config
        assert ModelConfig.from_huggingface(as_transformers(config.to_huggingface())) == config


@pytest.mark.parametrize("content", PUBLISHED, ids=lambda c: c["model_type"])
def test_published_configs_round_trip(content):
    config = ModelConfig.from_huggingface(content)
    assert ModelConfig.from_huggingface(config.to_huggingface()) == config
    assert hash(config) == hash(ModelConfig.from_huggingface(config.to_huggingface()))


@pytest.mark.parametrize("name", CONFIGS)
def test_tiny_configs_round_trip_through_transformers(name):
    config = CONFIGS[name]
    assert ModelConfig.from_huggingface(as_transformers(config.to_huggingface())) == config


@pytest.mark.parametrize("content", PUBLISHED, ids=lambda c: c["model_type"])
@pytest.mark.parametrize("rope", [None, YARN, {"rope_type": "linear", "factor": 2.0}])
def test_old_and_new_rope_forms_agree(content, rope):
    content = dict(content)
    own = content.pop("rope_scaling", None)
    theta = content.pop("rope_theta")
    rope = rope or own
    old = ModelConfig.from_huggingface({**content, "rope_theta": theta, "rope_scaling": rope})
    new = {
        **content,
        "rope_parameters": {"rope_theta": theta, "rope_type": "default", **(rope or {})},
    }
    assert ModelConfig.from_huggingface(new) == old
    assert ModelConfig.from_huggingface(as_transformers(new)) == old
    assert ModelConfig.from_huggingface(old.to_huggingface()) == old


@pytest.mark.parametrize("content", PUBLISHED, ids=lambda c: c["model_type"])
def test_silent_files_get_the_defaults_of_transformers(content):
    silent = {name: content[name] for name in REQUIRED}
    silent |= {"num_attention_heads": 32, "hidden_size": 4096, "num_hidden_layers": 30}
    for extra in ({}, {"use_sliding_window": True}):
        expected = ModelConfig.from_huggingface(as_transformers(silent | extra))
        assert ModelConfig.from_huggingface(silent | extra) == expected


def test_config_json_states_dtype_architecture_and_special_tokens():
    content = LLAMA.to_huggingface(bos_token_id=1, eos_token_id=(2, 3), dtype="bfloat16")
    assert content["architectures"] == ["LlamaForCausalLM"]
    assert (content["bos_token_id"], content["eos_token_id"]) == (1, [2, 3])
    assert str(as_transformers(content).dtype).endswith("bfloat16")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gemma"}, "supported are .*llama, .*mistral, .*qwen2, qwen3"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope scaling is 'longrope'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"full_attention": {"rope_type": "default"}}}, "by layer type"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "2048"}, "hidden_size is '2048'"),
        ({"hidden_size": 10**9}, "hidden_size is 1000000000; it must be at most"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000; it must be at most"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; it must be at most"),
        ({"intermediate_size": 2**30}, "intermediate_size is 1073741824; it must be at most"),
        ({"hidden_size": -8}, "hidden_size is -8"),
        ({"hidden_size": 2048.5}, "hidden_size is 2048.5; it must be a whole number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan; it must be finite"),
        ({"rope_theta": 0}, "the rope's base is 0.0"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'; it must be true"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor of the rope scaling is 0"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised by gptq"),
        ({"max_position_embeddings": 0}, "max_positions is 0"),
        ({"num_hidden_layers": 0}, "num_layers is 0"),
        ({"num_key_value_heads": 5}, "32 attention heads cannot share 5"),
        ({"head_dim": 63}, "head_dim is 63"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps is 'tiny'"),
        ({"num_attention_heads": 0}, "num_heads is 0"),
        ({"rope_scaling": ["linear"]}, "rope_scaling must be an object"),
        ({"rope_parameters": "default", "rope_scaling": None}, "rope_parameters must be an object"),
        ({"rope_scaling": YARN | {"original_max_position_embeddings": "8k"}}, "is '8k'"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_one_line(changes, said):
    content = {key: value for key, value in {**LLAMA_3_2, **changes}.items() if value is not None}
    with pytest.raises(UserError, match=said) as caught:
        ModelConfig.from_huggingface(content, where="some/config.json")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("some/config.json: ")


def test_layer_types_of_other_kinds_are_refused():
    content = {**QWEN_3, "use_sliding_window": True, "layer_types": ["chunked_attention"] * 28}
    with pytest.raises(UserError, match="chunked_attention"):
        ModelConfig.from_huggingface(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"qkv_bias": True},
        {"qk_norm": True},
        {"layer_windows": (16, 16, 16)},
        {"family": "mistral", "layer_windows": (16, None, 16)},
        {"family": "mistral", "qkv_bias": True, "output_bias": True},
        {"family": "qwen2"},
        {"family": "qwen3"},
        {"family": "qwen3", "qk_norm": True, "mlp_bias": True},
        {"family": "qwen3", "qk_norm": True, "layer_windows": (16, 8, None)},
    ],
)
def test_what_config_json_cannot_state_is_refused(changes):
    with pytest.raises(UserError, match="config.json cannot state it"):
        dataclasses.replace(LLAMA, **changes).to_huggingface()
