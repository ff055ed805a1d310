"""Mistral 7B: no biases, and one window for all layers or none."""

from emergent_alignment.models.family import ATTENTION, GATED_MLP, NORMS_BEFORE, Family, decoder
from emergent_alignment.models.gguf_stated import GgufForm
from emergent_alignment.models.stated import OneWindow

FAMILY = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    wrappers=("mistral3",),
    sizes="Mistral 7B, Nemo 12B, Small 24B",
    parameters=decoder(*NORMS_BEFORE, *ATTENTION, *GATED_MLP),
    stated={"layer_windows": OneWindow()},
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    gguf=(
        # Only the window tells such a file from a llama's, and only it matters.
        GgufForm("llama", marked="attention.sliding_window", pairs=True),
        GgufForm("mistral3", pairs=True),
    ),
)
