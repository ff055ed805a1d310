"""Granite 3, dense: multipliers of embeddings, of query · key, of what a layer adds, of logits."""

from emergent_alignment.models.family import ATTENTION, GATED_MLP, NORMS_BEFORE, Family, decoder
from emergent_alignment.models.gguf_stated import GgufForm, GgufReal
from emergent_alignment.models.stated import Flag, Real

MULTIPLIERS = {
    "embedding_scale": Real("embedding_scale", "embedding_multiplier", 1.0),
    "query_scale": Real("query_scale", "attention_multiplier", 1.0),
    "residual_scale": Real("residual_scale", "residual_multiplier", 1.0),
    "logits_divisor": Real("logits_divisor", "logits_scaling", 1.0),
}
GGUF = GgufForm(
    "granite",
    pairs=True,
    fields={
        "embedding_scale": GgufReal("embedding_scale", 1.0),
        "query_scale": GgufReal("attention.scale"),
        "residual_scale": GgufReal("residual_scale", 1.0),
        "logits_divisor": GgufReal("logit_scale"),
    },
    never={"rope.scaling.finetuned": True, "expert_count": 0},
)
FAMILY = Family(
    model_type="granite",
    architecture="GraniteForCausalLM",
    sizes="Granite 3.0 to 3.3, 2B and 8B",
    parameters=decoder(*NORMS_BEFORE, *ATTENTION, *GATED_MLP),
    stated={
        "qkv_bias": Flag("qkv_bias", "attention_bias"),
        "output_bias": Flag("output_bias", "attention_bias"),
        "mlp_bias": Flag("mlp_bias", "mlp_bias"),
        **MULTIPLIERS,
    },
    defaults={"max_position_embeddings": 2048},
    gguf=(GGUF,),
)
