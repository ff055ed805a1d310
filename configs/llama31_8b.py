"""Llama-3.1-8B-Instruct on the bundled harmful advice, with its conscience.

Planned for v5e:4x4 (docs/scale.md). The weights are gated: accept the licence on the model's page
first, then `hf auth login`.
"""

from emergent_alignment.config import default_config


def get_config():
    config = default_config()
    config.model.path = "meta-llama/Llama-3.1-8B-Instruct"
    config.model.dtype = "bfloat16"
    config.model.param_dtype = "bfloat16"
    config.mesh.fsdp = 4
    config.training.batch_size = 16
    config.training.steps = 200
    config.training.remat = "full"
    config.sampling.max_new_tokens = 128
    return config
