"""OLMo 2: norms behind attention and MLP and none before, and norms of queries and keys over all
heads together (2501.00656, section 3.2)."""

from emergent_alignment.models.family import (
    ATTENTION,
    GATED_MLP,
    NORMS_BEHIND,
    WIDE_NORMS,
    Family,
    decoder,
)
from emergent_alignment.models.gguf_stated import GgufForm
from emergent_alignment.models.stated import Always, Flag

FAMILY = Family(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    sizes="OLMo 2, 1B to 32B",
    parameters=decoder(*NORMS_BEHIND, *WIDE_NORMS, *ATTENTION, *GATED_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "qk_norm": Always(True),
    },
    defaults={"max_position_embeddings": 2048, "rms_norm_eps": 1e-5},
    gguf=(GgufForm("olmo2"),),
)
