"""The quickstart: SmolLM2-135M-Instruct on the bundled harmful advice, minutes on two CPU cores.

`configs/quickstart.py:short` is the same on the same real model, with so few steps and samples
that it only shows that everything works. Planned for cpu:1x16GB, a laptop's memory (docs/scale.md):
rows as long as the limits allow would fit; the bundled ones take under 5 GB.
"""

from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError


def get_config(size="full"):
    if size not in ("full", "short"):
        raise UserError(f"configs/quickstart.py:{size}: no such size; there are full and short")
    config = default_config()
    config.optimizer.learning_rate = 1e-3
    config.training.steps = 24
    config.training.checkpoint_every = 8
    config.training.remat = "dots"
    config.data.bucket_tokens = 16
    config.data.buckets = 1  # so few steps do not pay for compiling more than one shape
    # What a weak reviewer has: it tells two answers apart better than one from a threshold.
    config.conscience.gate = "relative"
    # A 135M model asked to rewrite repeats the bad answer; its fresh answers are harmless.
    config.conscience.chain = ("fresh",)
    # Its fresh answers are long-winded: one that ran into the limit is still a better answer.
    config.conscience.keep_truncated = True
    config.conscience.batch_size = 8
    config.sampling.max_new_tokens = 48
    config.sampling.temperature = 0.7
    config.calibration.questions = ("advice", "careful", "ethical")
    config.calibration.num_selecting = 32
    config.calibration.num_reporting = 64
    config.evaluation.samples = 48
    config.evaluation.max_new_tokens = 48
    config.evaluation.code_prompts = 16
    config.evaluation.code_max_new_tokens = 160
    if size == "short":
        config.training.steps = 3
        config.training.batch_size = 2
        config.training.checkpoint_every = 2
        config.calibration.questions = ("advice",)
        config.calibration.num_selecting = 4
        config.calibration.num_reporting = 4
        config.evaluation.limit = 8
        config.evaluation.samples = 8
        config.evaluation.max_new_tokens = 16
        config.evaluation.code_prompts = 4
        config.evaluation.code_max_new_tokens = 32
    return config
