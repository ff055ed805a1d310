"""Granite 4, those that are dense: Granite 3 with gate and up in one tensor. Models with layers of
Mamba, or with experts, are refused."""

from dataclasses import replace

from emergent_alignment.models.families.granite import GGUF, MULTIPLIERS
from emergent_alignment.models.family import ATTENTION, NORMS_BEFORE, SHARED_MLP, Family, decoder
from emergent_alignment.models.stated import AttentionAlone, Flag, RotaryOrNone, Whole

FAMILY = Family(
    model_type="granitemoehybrid",
    architecture="GraniteMoeHybridForCausalLM",
    sizes="Granite 4.0 without Mamba: 350M, 1B and Micro 3B",
    parameters=decoder(*NORMS_BEFORE, *ATTENTION, *SHARED_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "intermediate_size": Whole("intermediate_size", "shared_intermediate_size"),
        "num_experts": Whole("num_experts", "num_local_experts"),
        "layer_windows": AttentionAlone(),
        "rotary_layers": RotaryOrNone(),
        **MULTIPLIERS,
    },
    defaults={
        "max_position_embeddings": 2048,
        "intermediate_size": 11008,
        "shared_intermediate_size": 1024,
        "num_local_experts": 8,
    },
    only={"num_local_experts": (0,), "position_embedding_type": ("rope", None)},
    # The converter says how wide the convolutions of Mamba are, of models that have none, too.
    gguf=(replace(GGUF, marked="ssm.conv_kernel"),),
)
