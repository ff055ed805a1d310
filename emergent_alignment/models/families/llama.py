"""Llama 2 and 3, and what is built like them: biases where config.json asks for them."""

from emergent_alignment.models.family import ATTENTION, GATED_MLP, NORMS_BEFORE, Family, decoder
from emergent_alignment.models.gguf_stated import GgufForm
from emergent_alignment.models.stated import Flag

FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    sizes="Llama 2, 3, 3.1, 3.2, 3.3; SmolLM, SmolLM2; TinyLlama",
    parameters=decoder(*NORMS_BEFORE, *ATTENTION, *GATED_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "mlp_bias": Flag("mlp_bias", "mlp_bias"),
    },
    defaults={"max_position_embeddings": 2048},
    gguf=(GgufForm("llama", pairs=True),),
)
