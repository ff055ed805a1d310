"""Ministral 3: yarn, and queries that grow with their position beyond the length that the model was
first trained on. The multimodal checkpoints hold it under text_config."""

from emergent_alignment.models.family import ATTENTION, GATED_MLP, NORMS_BEFORE, Family, decoder
from emergent_alignment.models.gguf_stated import GgufForm, GgufGrowth, GgufReal, GgufSame
from emergent_alignment.models.stated import GrowingQueries, OneWindow

FAMILY = Family(
    model_type="ministral3",
    architecture="Ministral3ForCausalLM",
    wrappers=("mistral3",),
    sizes="Ministral 3, 3B to 14B",
    parameters=decoder(*NORMS_BEFORE, *ATTENTION, *GATED_MLP),
    stated={"layer_windows": OneWindow(), "query_growth": GrowingQueries()},
    defaults={
        "max_position_embeddings": 262144,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1_000_000.0,
            "factor": 16.0,
            "original_max_position_embeddings": 16384,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    },
    gguf=(
        GgufForm(
            "mistral3",
            marked="attention.temperature_scale",
            pairs=True,
            fields={"query_growth": GgufGrowth()},
            yarn={
                "mscale": GgufSame(1.0),
                "mscale_all_dim": GgufReal("rope.scaling.yarn_log_multiplier", optional=True),
            },
        ),
    ),
)
