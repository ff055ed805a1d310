"""OLMo 3: as OLMo 2, with windows of all but every fourth layer; only layers without one have their
rope scaled."""

from emergent_alignment.models.family import (
    ATTENTION,
    GATED_MLP,
    NORMS_BEHIND,
    WIDE_NORMS,
    Family,
    decoder,
)
from emergent_alignment.models.gguf_stated import GgufForm, GgufReal, GgufWindowedRope, GgufWindows
from emergent_alignment.models.stated import Always, Flag, PatternWindows, WindowedRope

FAMILY = Family(
    model_type="olmo3",
    architecture="Olmo3ForCausalLM",
    sizes="OLMo 3, 7B and 32B",
    parameters=decoder(*NORMS_BEHIND, *WIDE_NORMS, *ATTENTION, *GATED_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "qk_norm": Always(True),
        "layer_windows": PatternWindows(4),
        "windowed_rope": WindowedRope(default=500_000.0),
    },
    defaults={
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "sliding_window": 4096,
        "rope_theta": 500_000.0,
    },
    gguf=(
        GgufForm(
            "olmo2",
            marked="attention.sliding_window",
            fields={"layer_windows": GgufWindows(4), "windowed_rope": GgufWindowedRope()},
            yarn={
                "attention_factor": GgufReal("rope.scaling.yarn_attn_factor", optional=True),
            },
        ),
    ),
)
