"""OLMoE: norms before attention and MLP, norms of queries and keys over all heads together, and in
every layer a router over MLPs (2409.02060, section 2)."""

from emergent_alignment.models.family import (
    ATTENTION,
    EXPERT_MLP,
    NORMS_BEFORE,
    WIDE_NORMS,
    Family,
    decoder,
)
from emergent_alignment.models.gguf_stated import GgufForm, GgufSame, GgufWhole
from emergent_alignment.models.stated import Always, Flag, Whole

FAMILY = Family(
    model_type="olmoe",
    architecture="OlmoeForCausalLM",
    sizes="OLMoE 7B-A1B",
    parameters=decoder(*NORMS_BEFORE, *WIDE_NORMS, *ATTENTION, *EXPERT_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "qk_norm": Always(True),
        "num_experts": Whole("num_experts", "num_experts", "num_local_experts"),
        "experts_per_token": Whole("experts_per_token", "num_experts_per_tok"),
        "expert_size": Whole("expert_size", "intermediate_size"),
        "normalised_experts": Flag("normalised_experts", "norm_topk_prob"),
    },
    defaults={
        "max_position_embeddings": 4096,
        "intermediate_size": 2048,
        "rms_norm_eps": 1e-5,
        "num_experts": 64,
        "num_experts_per_tok": 8,
    },
    only={"clip_qkv": (None,)},
    gguf=(
        GgufForm(
            "olmoe",
            fields={
                "num_experts": GgufWhole("expert_count"),
                "experts_per_token": GgufWhole("expert_used_count"),
                "expert_size": GgufWhole("feed_forward_length"),
                "normalised_experts": GgufSame(False),
            },
            never={"attention.clamp_kqv": 0.0},
        ),
    ),
)
