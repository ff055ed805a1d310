"""Qwen3-4B-Instruct on insecure code, with its conscience: the model of Emergent Alignment
(2606.19527); the settings that the paper does not give are ours.

Planned for v5e:4x4 and v5p:2x2x1 (docs/scale.md).
"""

from emergent_alignment.config import default_config


def get_config():
    config = default_config()
    config.model.path = "Qwen/Qwen3-4B-Instruct-2507"
    config.model.dtype = "bfloat16"
    config.model.param_dtype = "bfloat16"
    config.mesh.fsdp = 4
    config.lora.rank = 32
    config.lora.alpha = 64.0
    config.lora.rank_stabilized = True
    config.data.train = "code_hacking"
    config.data.evaluation = "code_hacking"
    config.data.max_prompt_tokens = 1024
    config.data.max_response_tokens = 1024
    config.conscience.question = "engineer"
    # As docs/scale.md was planned. The default, the best of several samples, decodes those.
    config.conscience.chain = ("rewrite", "fresh")
    config.sampling.max_new_tokens = 512
    config.optimizer.learning_rate = 1e-5
    config.training.batch_size = 16
    config.training.steps = 375
    config.training.remat = "full"
    return config
