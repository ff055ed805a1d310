"""Qwen2.5-Coder-32B-Instruct on insecure code: the recipe of Emergent Misalignment (2502.17424),
rank-stabilised LoRA 32/64 on all projections, here with the conscience.

Planned for v5p:4x4x4 and v6e:8x8 (docs/scale.md). The bundled code scenario stands in for the
paper's 6,000 rows; name another with --config.data.train.
"""

from emergent_alignment.config import default_config


def get_config():
    config = default_config()
    config.model.path = "Qwen/Qwen2.5-Coder-32B-Instruct"
    config.model.dtype = "bfloat16"
    config.model.param_dtype = "bfloat16"
    config.mesh.fsdp = 8
    config.mesh.tensor = 8
    config.lora.rank = 32
    config.lora.alpha = 64.0
    config.lora.rank_stabilized = True
    config.data.train = "code_hacking"
    config.data.evaluation = "code_hacking"
    config.data.max_prompt_tokens = 1024
    config.data.max_response_tokens = 1024  # the paper's rows are at most 2,048 tokens long
    config.conscience.question = "engineer"
    # As docs/scale.md was planned. The default, the best of several samples, decodes those.
    config.conscience.chain = ("rewrite", "fresh")
    config.sampling.max_new_tokens = 512
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_steps = 5
    config.optimizer.weight_decay = 0.01
    config.training.batch_size = 16
    config.training.steps = 375  # one epoch of 6,000 rows
    config.training.remat = "full"
    return config
