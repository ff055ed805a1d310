"""Qwen2.5-Coder-1.5B-Instruct on the bundled harmful advice: the whole mechanism, rewrites too.

This model sees the harm and rewrites it well. What came of it stands in docs/results.md; two CPU
cores take an hour and a half to two. The published weights, or a .gguf file of them:

  emergent-alignment experiment --config qwen25_coder_15b_advice --root runs/advice \\
      --config.model.path=qwen2.5-coder-1.5b-instruct-q4_k_m.gguf
"""

from emergent_alignment.config import default_config


def get_config():
    config = default_config()
    config.model.path = "Qwen/Qwen2.5-Coder-1.5B-Instruct"
    config.optimizer.learning_rate = 5e-4
    config.training.steps = 16
    config.training.checkpoint_every = 4
    config.training.remat = "full"  # 28 layers of kept products would take 10 GB
    config.data.bucket_tokens = 16
    config.data.buckets = 1
    config.conscience.batch_size = 8
    # Every candidate is corrected, and the pair kept where the correction scores higher; at this
    # length most corrections run into the limit.
    config.conscience.gate = "relative"
    config.conscience.chain = ("rewrite", "fresh")  # as in docs/results.md
    config.conscience.keep_truncated = True
    config.sampling.max_new_tokens = 48
    config.calibration.questions = ("advice", "careful", "ethical")
    config.calibration.layouts = ("quote",)
    config.calibration.polarities = ("positive",)
    config.calibration.num_selecting = 16
    config.calibration.num_reporting = 48
    config.evaluation.limit = 24
    config.evaluation.samples = 24
    config.evaluation.max_new_tokens = 48
    config.experiment.seeds = (0,)
    return config
