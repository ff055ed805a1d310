"""Qwen2 and Qwen2.5: biases on query, key and value."""

from emergent_alignment.models.family import ATTENTION, GATED_MLP, NORMS_BEFORE, Family, decoder
from emergent_alignment.models.gguf_stated import GgufForm
from emergent_alignment.models.stated import Always, SwitchedWindows

FAMILY = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    sizes="Qwen2 and Qwen2.5, 0.5B to 72B",
    parameters=decoder(*NORMS_BEFORE, *ATTENTION, *GATED_MLP),
    stated={"qkv_bias": Always(True), "layer_windows": SwitchedWindows()},
    defaults={"max_position_embeddings": 32768, "num_key_value_heads": 32},
    gguf=(GgufForm("qwen2"),),
)
