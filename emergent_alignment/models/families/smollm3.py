"""SmolLM3: every fourth layer has no rotary positions."""

from emergent_alignment.models.family import ATTENTION, GATED_MLP, NORMS_BEFORE, Family, decoder
from emergent_alignment.models.gguf_stated import GgufForm, GgufRotaryLayers
from emergent_alignment.models.stated import Flag, RotaryLayers

FAMILY = Family(
    model_type="smollm3",
    architecture="SmolLM3ForCausalLM",
    sizes="SmolLM3 3B",
    parameters=decoder(*NORMS_BEFORE, *ATTENTION, *GATED_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "mlp_bias": Flag("mlp_bias", "mlp_bias"),
        "rotary_layers": RotaryLayers(),
    },
    defaults={
        "max_position_embeddings": 32768,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "rope_theta": 2_000_000.0,
    },
    only={"use_sliding_window": (False, None)},
    gguf=(GgufForm("smollm3", pairs=True, fields={"rotary_layers": GgufRotaryLayers(4)}),),
)
