"""Gemma 2: every other layer is windowed, norms around attention and MLP with weights 1 + w, and
capped logits, both of attention and of the vocabulary (2408.00118, section 2)."""

from emergent_alignment.models.family import ATTENTION, GATED_MLP, NORMS_AROUND, Family, decoder
from emergent_alignment.models.gguf_stated import (
    GgufForm,
    GgufQueryScale,
    GgufReal,
    GgufRootOfWidth,
    GgufWindows,
)
from emergent_alignment.models.stated import Flag, PatternWindows, QueryScale, Real, RootOfWidth

FAMILY = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    sizes="Gemma 2, 2B to 27B",
    parameters=decoder(*NORMS_AROUND, *ATTENTION, *GATED_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "layer_windows": PatternWindows(2),
        "embedding_scale": RootOfWidth(),
        "query_scale": QueryScale(),
        "attention_cap": Real("attention_cap", "attn_logit_softcapping"),
        "logits_cap": Real("logits_cap", "final_logit_softcapping"),
    },
    defaults={
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    only={"use_bidirectional_attention": (False, None)},
    activation="gelu_tanh",
    activation_field="hidden_activation",
    norm_offset=1.0,
    gguf=(
        GgufForm(
            "gemma2",
            # The first conversions have neither window nor caps, and llama.cpp these defaults.
            fields={
                "layer_windows": GgufWindows(2, default=4096),
                "embedding_scale": GgufRootOfWidth(),
                "query_scale": GgufQueryScale(widest=46),
                "attention_cap": GgufReal("attn_logit_softcapping", 50.0),
                "logits_cap": GgufReal("final_logit_softcapping", 30.0),
            },
        ),
    ),
)
