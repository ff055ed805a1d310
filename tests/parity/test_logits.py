"""Our logits are those of transformers, on the same weights: into this library and out of it.

Needs torch, which the library itself does not; where it is missing, everything here is skipped.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402

from emergent_alignment.models.attention import causal_plan  # noqa: E402
from emergent_alignment.models.checkpoint import (  # noqa: E402
    SafetensorsSource,
    read_json,
    read_parameters,
)
from emergent_alignment.models.config import ModelConfig  # noqa: E402
from emergent_alignment.models.default_model import default_model  # noqa: E402
from emergent_alignment.models.export import write_peft, write_safetensors  # noqa: E402
from emergent_alignment.models.forward import forward, unembedding  # noqa: E402
from emergent_alignment.models.loading import read_model  # noqa: E402
from emergent_alignment.models.lora import LoraConfig, attach, init_adapters, merge  # noqa: E402

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "attn_implementation": "eager",
}
STRETCHED = {"rope_theta": 10000.0, "factor": 4.0}
ORIGINAL = {"original_max_position_embeddings": 16}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}


def rope(kind: str, **fields) -> dict:
    return {"rope_parameters": {"rope_type": kind, **STRETCHED, **fields}}


MODELS = {
    "llama": ("Llama", {}),
    "llama_tied": ("Llama", {"tie_word_embeddings": True}),
    "llama_biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_theta": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    "llama_linear": ("Llama", rope("linear")),
    "llama_dynamic": ("Llama", rope("dynamic")),
    "llama_llama3": ("Llama", rope("llama3", **ORIGINAL, **LLAMA3)),
    "llama_yarn": ("Llama", rope("yarn", **ORIGINAL)),
    "llama_yarn_mscale": (
        "Llama",
        rope("yarn", **ORIGINAL, beta_fast=8.0, mscale=0.7, mscale_all_dim=0.4, truncate=False),
    ),
    "llama_wide_heads": ("Llama", {"head_dim": 16}),
    "mistral": ("Mistral", {"sliding_window": 7}),
    "mistral_no_window": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2_windows": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3_tied_biases": (
        "Qwen3",
        {"head_dim": 16, "tie_word_embeddings": True, "attention_bias": True},
    ),
}


def random_torch_model(name: str) -> "transformers.PreTrainedModel":
    """A tiny model whose weights, norms and biases are far from those of an untrained one."""
    family, changes = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**(SIZES | changes))
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.normal_(std=0.3)
            if "norm" in parameter_name:
                parameter.add_(1.0)
    return model


def random_tokens(vocabulary: int = 96, length: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocabulary, (2, length))


def torch_logits(model, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.float().numpy()


def our_logits(config: ModelConfig, params: dict, tokens: np.ndarray) -> np.ndarray:
    @jax.jit
    def compute(params, tokens):
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden, _ = forward(config, params, tokens, positions, causal_plan(positions))
        return hidden @ unembedding(params)

    return np.asarray(compute(params, tokens))


def read_directory(directory: Path) -> tuple[ModelConfig, dict]:
    config = ModelConfig.from_huggingface(read_json(directory / "config.json"))
    return config, read_parameters(SafetensorsSource(directory), config, dtype=jnp.float32)


def assert_same_logits(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert theirs.std() > 0.5, "logits too much alike to tell anything"
    difference = np.abs(ours - theirs)
    worst = np.unravel_index(difference.argmax(), difference.shape)
    assert difference.max() <= 1e-4, (
        f"row {worst[0]}, token {worst[1]}, id {worst[2]}:"
        f" {ours[worst]}, transformers {theirs[worst]}"
    )


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_a_saved_model_are_those_of_transformers(name, tmp_path):
    model = random_torch_model(name)
    model.save_pretrained(tmp_path)
    config, params = read_directory(tmp_path)
    tokens = random_tokens()
    assert_same_logits(our_logits(config, params, tokens), torch_logits(model, tokens))


@pytest.mark.parametrize("name", [name for name in MODELS if "_" in name])
def test_each_variant_differs_from_its_plain_family(name):
    """Otherwise the test above would pass with the setting ignored."""
    if name in ("llama_dynamic", "llama_tied", "qwen3_tied_biases"):
        pytest.skip("dynamic is plain within max_positions; the others have other weights")
    tokens = random_tokens()
    plain = random_torch_model(name.split("_")[0])
    variant = random_torch_model(name)
    weights = {n: p for n, p in plain.state_dict().items() if n in variant.state_dict()}
    if any(variant.state_dict()[n].shape != p.shape for n, p in weights.items()):
        pytest.skip("other shapes")
    variant.load_state_dict(weights, strict=False)
    difference = np.abs(torch_logits(variant, tokens) - torch_logits(plain, tokens)).max()
    assert difference > 1e-2


def test_logits_of_the_real_default_model_are_those_of_transformers():
    """Against transformers in float64, on the same dequantised weights.

    30 layers in float32 round by about 1e-4 at worst: measured on five texts, where logits reach
    30 to 40, transformers' own float32 is up to 1.1e-4 from its float64, ours up to 1.8e-4 (XLA
    adds up a matmul's products in another order; with exact matmuls ours is at 7e-5). So the
    largest difference is held to 1e-5 of the largest logit, and the usual one to 1e-4 as it is.
    """
    path = Path(default_model())
    where = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent if where else path, dtype=torch.float32, **where
    )
    config, params, tokenizer = read_model(path, dtype=jnp.float32)
    text = "The capital of France is Paris. def add(a, b):\n    return a + b\n" * 3
    tokens = np.array([tokenizer.encode(text)])
    ours, model = our_logits(config, params, tokens), model.eval().double()
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits.numpy()
    difference = np.abs(ours - theirs)
    assert difference.max() <= 1e-5 * np.abs(theirs).max()
    assert np.sqrt(np.square(difference).mean()) <= 1e-4
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()


# ------------------------------------------------------------------------ out of the library


def plain_tokenizer() -> "transformers.PreTrainedTokenizerFast":
    words = {f"w{number}": number for number in range(96)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words)), eos_token="w0"
    )


def random_adapters(params: dict, lora: LoraConfig) -> dict:
    draw = np.random.default_rng(1)
    adapters = init_adapters(params, lora, jax.random.key(0))
    return jax.tree.map(
        lambda leaf: jnp.array(draw.standard_normal(leaf.shape) * 0.1, jnp.float32), adapters
    )


LORAS = [
    LoraConfig(rank=4, alpha=8.0),
    LoraConfig(rank=4, alpha=8.0, rank_stabilized=True),
    LoraConfig(rank=2, alpha=1.0, targets=("query", "down")),
]
EXPORTED = ["llama", "llama_llama3", "llama_yarn_mscale", "mistral", "qwen2_windows", "qwen3"]


@pytest.mark.parametrize("name", EXPORTED)
def test_transformers_gives_an_exported_model_our_logits(name, tmp_path):
    random_torch_model(name).save_pretrained(tmp_path / "original")
    config, params = read_directory(tmp_path / "original")
    # Not the original's own numbers, so that only the export can explain agreement.
    params = jax.tree.map(lambda leaf: leaf[::-1] * 1.1, params)
    write_safetensors(tmp_path / "exported", config, params, plain_tokenizer())
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "exported", dtype=torch.float32
    )
    tokens = random_tokens()
    assert_same_logits(our_logits(config, params, tokens), torch_logits(model.eval(), tokens))


@pytest.mark.parametrize("lora", LORAS, ids=str)
def test_transformers_gives_a_model_exported_with_merged_adapters_our_logits(lora, tmp_path):
    random_torch_model("qwen2").save_pretrained(tmp_path / "original")
    config, params = read_directory(tmp_path / "original")
    adapters, tokens = random_adapters(params, lora), random_tokens()
    merged = merge(params, adapters, lora)
    write_safetensors(tmp_path / "exported", config, merged, plain_tokenizer())
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "exported", dtype=torch.float32
    )
    ours = our_logits(config, attach(params, adapters, lora), tokens)
    assert np.abs(ours - our_logits(config, params, tokens)).max() > 0.1
    assert_same_logits(ours, torch_logits(model.eval(), tokens))


@pytest.mark.parametrize("lora", LORAS, ids=str)
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_peft_gives_exported_adapters_our_logits(name, lora, tmp_path):
    peft = pytest.importorskip("peft")
    base = random_torch_model(name)
    base.save_pretrained(tmp_path / "base")
    config, params = read_directory(tmp_path / "base")
    adapters, tokens = random_adapters(params, lora), random_tokens()
    write_peft(
        tmp_path / "adapters",
        config,
        adapters,
        rank=lora.rank,
        alpha=lora.alpha,
        rank_stabilized=lora.rank_stabilized,
        base_name=os.fspath(tmp_path / "base"),
    )
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapters").eval()
    ours = our_logits(config, attach(params, adapters, lora), tokens)
    assert np.abs(ours - our_logits(config, params, tokens)).max() > 0.1
    assert_same_logits(ours, torch_logits(model, tokens))
