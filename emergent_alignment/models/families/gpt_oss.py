"""gpt-oss: in every layer a router over MLPs whose gates are clamped, biases everywhere, sinks in
the softmax of attention, and windows of every other layer (2508.10925, section 2.2)."""

from emergent_alignment.models.family import (
    ATTENTION,
    BIASED_EXPERT_MLP,
    NORMS_BEFORE_BY_PLACE,
    SINKS,
    Family,
    decoder,
)
from emergent_alignment.models.gguf_stated import GgufForm, GgufSame, GgufWhole, GgufWindows
from emergent_alignment.models.stated import Always, Flag, PatternWindows, Real, Whole

FAMILY = Family(
    model_type="gpt_oss",
    architecture="GptOssForCausalLM",
    sizes="gpt-oss 20B and 120B",
    parameters=decoder(*NORMS_BEFORE_BY_PLACE, *ATTENTION, SINKS, *BIASED_EXPERT_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "layer_windows": PatternWindows(2),
        "num_experts": Whole("num_experts", "num_local_experts"),
        "experts_per_token": Whole("experts_per_token", "num_experts_per_tok"),
        "expert_size": Whole("expert_size", "intermediate_size"),
        "normalised_experts": Always(True),
        "gate_limit": Real("gate_limit", "swiglu_limit", 7.0),
    },
    defaults={
        "max_position_embeddings": 131072,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 2880,
        "rms_norm_eps": 1e-5,
        "sliding_window": 128,
        "attention_bias": True,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "rope_theta": 150_000.0,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    },
    only={"swiglu_alpha": (1.702,)},
    activation="clamped_swiglu",
    quantised=("mxfp4",),
    gguf=(
        GgufForm(
            "gpt-oss",
            fields={
                "layer_windows": GgufWindows(2),
                "num_experts": GgufWhole("expert_count"),
                "experts_per_token": GgufWhole("expert_used_count"),
                "expert_size": GgufWhole("expert_feed_forward_length"),
                "normalised_experts": GgufSame(True),
                "gate_limit": GgufSame(7.0),
            },
            yarn={"truncate": GgufSame(False)},
        ),
    ),
)
