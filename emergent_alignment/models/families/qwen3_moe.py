"""Qwen3 with experts: its attention and in every layer a router over MLPs (2505.09388, table 2)."""

from emergent_alignment.models.family import (
    ATTENTION,
    EXPERT_MLP,
    HEAD_NORMS,
    NORMS_BEFORE,
    Family,
    decoder,
)
from emergent_alignment.models.gguf_stated import GgufForm, GgufSame, GgufWhole
from emergent_alignment.models.stated import Always, Flag, Whole

FAMILY = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    sizes="Qwen3 30B-A3B and 235B-A22B",
    parameters=decoder(*NORMS_BEFORE, *HEAD_NORMS, *ATTENTION, *EXPERT_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "qk_norm": Always(True),
        "num_experts": Whole("num_experts", "num_experts", "num_local_experts"),
        "experts_per_token": Whole("experts_per_token", "num_experts_per_tok"),
        "expert_size": Whole("expert_size", "moe_intermediate_size"),
        "normalised_experts": Flag("normalised_experts", "norm_topk_prob"),
    },
    defaults={
        "max_position_embeddings": 32768,
        "num_key_value_heads": 4,
        "intermediate_size": 6144,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    },
    only={
        "mlp_only_layers": ([], None),
        "decoder_sparse_step": (1,),
        "use_sliding_window": (False, None),
    },
    gguf=(
        GgufForm(
            "qwen3moe",
            fields={
                "num_experts": GgufWhole("expert_count"),
                "experts_per_token": GgufWhole("expert_used_count"),
                "expert_size": GgufWhole("expert_feed_forward_length"),
                "normalised_experts": GgufSame(True),
            },
        ),
    ),
)
