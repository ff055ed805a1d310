"""Qwen3, dense: norms of each query and key head, biases where config.json asks for them."""

from emergent_alignment.models.family import (
    ATTENTION,
    GATED_MLP,
    HEAD_NORMS,
    NORMS_BEFORE,
    Family,
    decoder,
)
from emergent_alignment.models.gguf_stated import GgufForm
from emergent_alignment.models.stated import Always, Flag, SwitchedWindows

FAMILY = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    sizes="Qwen3, 0.6B to 32B",
    parameters=decoder(*NORMS_BEFORE, *HEAD_NORMS, *ATTENTION, *GATED_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "qk_norm": Always(True),
        "layer_windows": SwitchedWindows(),
    },
    defaults={"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
    gguf=(GgufForm("qwen3"),),
)
