"""Gemma 3, its text: five windowed layers with a rope of their own to one that sees everything,
norms around attention and MLP with weights 1 + w, and norms of each query and key head (2503.19786,
section 2). The multimodal checkpoints (4B and larger) hold it under text_config.
"""

from emergent_alignment.models.family import (
    ATTENTION,
    GATED_MLP,
    HEAD_NORMS,
    NORMS_AROUND,
    Family,
    decoder,
)
from emergent_alignment.models.gguf_stated import (
    GgufForm,
    GgufQueryScale,
    GgufRootOfWidth,
    GgufWindowedRope,
    GgufWindows,
)
from emergent_alignment.models.stated import (
    Always,
    Flag,
    PatternWindows,
    QueryScale,
    RootOfWidth,
    WindowedRope,
)

FAMILY = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    wrappers=("gemma3",),
    sizes="Gemma 3, 270M to 27B",
    parameters=decoder(*NORMS_AROUND, *HEAD_NORMS, *ATTENTION, *GATED_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "qk_norm": Always(True),
        "layer_windows": PatternWindows(6, "sliding_window_pattern"),
        "windowed_rope": WindowedRope("rope_local_base_freq"),
        "embedding_scale": RootOfWidth(),
        "query_scale": QueryScale(),
    },
    defaults={
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "rope_theta": 1_000_000.0,
    },
    only={
        "use_bidirectional_attention": (False, None),
        "attn_logit_softcapping": (None,),
        "final_logit_softcapping": (None,),
    },
    activation="gelu_tanh",
    activation_field="hidden_activation",
    norm_offset=1.0,
    gguf=(
        GgufForm(
            "gemma3",
            fields={
                "layer_windows": GgufWindows(6, default=0),
                "windowed_rope": GgufWindowedRope(10_000.0),
                "embedding_scale": GgufRootOfWidth(),
                "query_scale": GgufQueryScale(widest=62),
            },
            never={"final_logit_softcapping": 0.0, "attention.causal": True},
        ),
    ),
)
