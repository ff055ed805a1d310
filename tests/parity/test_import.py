"""What is read and written equals what transformers and peft read and write.

Needs torch and peft, so it runs in an environment of its own: `python -m pytest tests/parity`.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

import transformers  # noqa: E402 (after the skip)
from tokenizers import pre_tokenizers  # noqa: E402
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402

from emergent_alignment.models import names  # noqa: E402
from emergent_alignment.models.config import ModelConfig, RopeScaling  # noqa: E402
from emergent_alignment.models.export import write_peft, write_safetensors  # noqa: E402
from emergent_alignment.models.generation_config import end_tokens_of  # noqa: E402
from emergent_alignment.models.loading import read_model, resolve  # noqa: E402
from emergent_alignment.models.rope import rope_frequencies  # noqa: E402
from emergent_alignment.models.tokenizer import load_tokenizer  # noqa: E402

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  leading, trailing, and   inner spaces  ",
    "I'm, you've, he'LL, don't, x's",
    "a\tb\r\n\r\n\n c\u00a0d\u3000e",
    "def f(x: int) -> int:\n    return x**2 + 1  # comment\n\n\nprint(f(10))\n",
    "2024-01-31, 3.14159, 1,000,000, x1y22z333",
    "in 1999\n 12\n\n  7",
    "Ünïcödé, Straße, naïve e\u0301 ≠ é, İstanbul",
    "Привет, мир! שלום العربية हिन्दी ไทย",
    "日本語のテキスト。中文测试！한국어",
    "١٢٣ ½ Ⅷ ² ①",
    "😀👩\u200d👩\u200d👧 🇩🇪 ♥\ufe0f",
    "\u200b\ufeff\u2028\u0000\x7f",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|> <|im_end|>x<|im_end <repo_name>a/b<file_sep>",
    "{{ braces }} <html>&amp;</html> \\n \\u00e9 C:\\path",
    "word" * 300,
]
CHATS = [
    [{"role": "user", "content": "Was this answer ethical?"}],
    [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": " 2 + 2 = ?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "<think>é 😀</think>"},
    ],
]
FAMILIES = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 16},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 8},
}


@pytest.fixture(scope="session")
def real_file():
    """The default model's .gguf file."""
    return resolve("default")


@pytest.fixture(scope="session")
def ours(real_file):
    """(config, params, tokenizer) of the default model, as we read it."""
    return read_model(real_file, dtype=jnp.float32)


@pytest.fixture(scope="session")
def theirs(real_file):
    """The default model, as transformers reads it."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        real_file.parent, gguf_file=real_file.name, dtype=torch.float32
    )


def tensors_of(config, params):
    """A parameter tree as Hugging Face tensors by name."""
    leaves = traverse_util.flatten_dict(params)
    tensors = {}
    for path, row in names.tensor_names(config).items():
        stack = np.asarray(leaves[path])
        for layer, tensor in enumerate(stack if row.stacked else stack[None]):
            name = row.huggingface.format(layer=layer)
            tensors[name] = tensor.T if row.transposed else tensor
    return tensors


def assert_same_weights(config, params, model):
    """Every tensor of ours equals the model's, bit for bit, and the model has no other."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    if config.tie_embeddings:
        np.testing.assert_array_equal(state.pop("lm_head.weight"), params["embedding"])
    expected = tensors_of(config, params)
    assert expected.keys() == state.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensor, state[name], err_msg=name)


def tiny(family, **changes):
    """A tiny transformers model with random weights, biases and norms included."""
    fields = {
        "vocab_size": 300,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    settings = fields | FAMILIES[family] | changes
    config = transformers.AutoConfig.for_model(family, **settings)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def their_tokenizer(real_file):
    """The tokenizer that transformers makes of the file, with SmolLM2's rule for digits.

    transformers 5.23 does not know the pre-tokenizer "smollm" and leaves GPT-2's in place, so that
    "\\n 12" or " ½" come out otherwise than from SmolLM2's own tokenizer.json, which takes single
    digits out first.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        real_file.parent, gguf_file=real_file.name
    )
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def test_the_real_tokenizer_gives_the_ids_and_texts_of_transformers(real_file, ours):
    tokenizer, expected = ours[2], their_tokenizer(real_file)
    assert tokenizer.get_vocab() == expected.get_vocab()
    random = np.random.default_rng(0)
    joined = ["".join(random.choice(TEXTS[:-1], size=4)) for _ in range(200)]
    for text in TEXTS + joined:
        ids = expected(text).input_ids
        assert tokenizer(text).input_ids == ids, repr(text)
        assert tokenizer.decode(ids) == expected.decode(ids)
        assert tokenizer.decode(ids, skip_special_tokens=True) == expected.decode(
            ids, skip_special_tokens=True
        )


def test_the_real_tokenizer_names_the_same_special_tokens(real_file, ours):
    tokenizer, expected = ours[2], their_tokenizer(real_file)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        assert getattr(tokenizer, name) == getattr(expected, name), name
    assert set(tokenizer.added_tokens_decoder) == set(expected.added_tokens_decoder)


@pytest.mark.parametrize("chat", CHATS, ids=["one turn", "four turns"])
@pytest.mark.parametrize("prompted", [True, False])
def test_real_chats_render_alike(real_file, ours, chat, prompted):
    expected = their_tokenizer(real_file)
    options = {"add_generation_prompt": prompted, "return_dict": False}
    assert ours[2].apply_chat_template(chat, **options) == expected.apply_chat_template(
        chat, **options
    )


def test_the_real_config_is_the_one_transformers_reads(ours, theirs):
    content = theirs.config.to_dict()
    content.pop("quantization_config", None)  # how transformers notes that it came from GGUF
    read = ModelConfig.from_huggingface(content)
    # transformers leaves 1e-05 as the nearest float32, 9.99999975e-06.
    assert dataclasses.replace(read, rms_norm_eps=np.float32(read.rms_norm_eps)) == (
        dataclasses.replace(ours[0], rms_norm_eps=np.float32(ours[0].rms_norm_eps))
    )


def test_the_real_weights_are_those_of_transformers(ours, theirs):
    assert_same_weights(ours[0], ours[1], theirs)


def test_the_real_model_exports_to_what_transformers_loads(ours, tmp_path):
    config, params, tokenizer = ours
    directory = write_safetensors(
        tmp_path / "model", config, params, tokenizer, max_shard_bytes=200 * 10**6
    )
    assert len(list(directory.glob("model-*.safetensors"))) == 3
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        directory, output_loading_info=True
    )
    assert not any(report.values()), report
    assert model.dtype == torch.float32
    assert_same_weights(config, params, model)
    assert ModelConfig.from_huggingface(model.config) == config
    # All that end an answer, the tokenizer's own first; of this file, <|endoftext|> is another.
    ends = model.generation_config.eos_token_id
    assert ends[0] == tokenizer.eos_token_id and set(ends) == set(end_tokens_of(tokenizer))
    loaded = transformers.AutoTokenizer.from_pretrained(directory)
    for text in TEXTS:
        assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.model_max_length == config.max_positions
    assert load_tokenizer(directory)(TEXTS[6]).input_ids == tokenizer(TEXTS[6]).input_ids


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shards", ["1GB", "20KB"])
def test_directories_written_by_transformers_are_read(family, shards, tmp_path, ours):
    model = tiny(family, vocab_size=49152)
    model.save_pretrained(tmp_path, max_shard_size=shards)
    ours[2].save_pretrained(tmp_path)
    config, params, _ = read_model(tmp_path, dtype=jnp.float32)
    assert_same_weights(config, params, model)
    assert config.family == family


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_directories_written_by_us_are_read_by_transformers(family, dtype, tmp_path, ours):
    model = tiny(family, vocab_size=49152)
    model.save_pretrained(tmp_path / "theirs")
    ours[2].save_pretrained(tmp_path / "theirs")
    config, params, tokenizer = read_model(tmp_path / "theirs", dtype=dtype)
    directory = write_safetensors(tmp_path / "ours", config, params, tokenizer)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        directory, output_loading_info=True
    )
    assert not any(report.values()), report
    assert str(again.dtype) == f"torch.{np.dtype(dtype).name}"
    assert again.config.architectures == [type(model).__name__]
    again = again.float()
    widened = traverse_util.unflatten_dict(
        {k: v.astype(jnp.float32) for k, v in traverse_util.flatten_dict(params).items()}
    )
    assert_same_weights(config, widened, again)


ROPES = [
    None,
    RopeScaling("linear", 4.0),
    RopeScaling("dynamic", 2.0),
    RopeScaling("llama3", 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0),
    RopeScaling("llama3", 32.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0),
    RopeScaling("yarn", 4.0, 32768),
    RopeScaling("yarn", 40.0, 4096, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=0.7),
    RopeScaling("yarn", 8.0, 2048, attention_factor=1.25, truncate=False),
]


@pytest.mark.parametrize("scaling", ROPES, ids=str)
@pytest.mark.parametrize("theta", [10000.0, 500000.0, 1000000.0])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_rope_frequencies_are_those_of_transformers(scaling, theta, head_dim, ours):
    config = dataclasses.replace(
        ours[0],
        rope_theta=theta,
        rope_scaling=scaling,
        head_dim=head_dim,
        max_positions=131072,
    )
    content = config.to_huggingface()
    reference = transformers.AutoConfig.for_model(**content)
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(reference)
    found, factor = rope_frequencies(config)
    np.testing.assert_allclose(found, rotary.inv_freq.numpy(), rtol=1e-6)
    assert factor == pytest.approx(rotary.attention_scaling, rel=1e-7)
    if scaling is not None:
        expected, _ = ROPE_INIT_FUNCTIONS[scaling.kind](reference, "cpu")
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("rank_stabilized", [False, True])
@pytest.mark.parametrize(
    "targets", [("query", "value"), tuple(names.PROJECTION_NAMES)], ids=["two", "seven"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_exported_adapters_give_peft_the_merged_weights(family, rank_stabilized, targets, tmp_path):
    base = tiny(family)
    config = ModelConfig.from_huggingface(base.config)
    kernels = {name: tensor.numpy().copy() for name, tensor in base.state_dict().items()}
    random, rank, alpha = np.random.default_rng(0), 4, 6.0
    adapters = {
        name: {
            "a": random.normal(size=(config.num_layers, inputs, rank)).astype(np.float32),
            "b": random.normal(size=(config.num_layers, rank, outputs)).astype(np.float32),
        }
        for name, (inputs, outputs) in names.projection_sizes(config).items()
        if name in targets
    }
    directory = write_peft(
        tmp_path / "adapter",
        config,
        adapters,
        rank=rank,
        alpha=alpha,
        rank_stabilized=rank_stabilized,
        base_name="tiny",
    )
    merged = peft.PeftModel.from_pretrained(base, directory).merge_and_unload().state_dict()
    scale = alpha / (rank**0.5 if rank_stabilized else rank)
    for name, kernel in kernels.items():
        for target, (module, _) in names.PROJECTION_NAMES.items():
            if target in targets and name.endswith(f"{module}.weight"):
                layer = int(name.split(".")[2])
                update = adapters[target]["a"][layer] @ adapters[target]["b"][layer]
                kernel = kernel + scale * update.T
        np.testing.assert_allclose(merged[name].numpy(), kernel, rtol=1e-5, atol=1e-5)
