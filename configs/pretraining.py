"""Raw text: a few million parameters from random weights on the running Python's own standard
library, under 10 minutes on two CPU cores.

`:short` is the same in two steps. `:checkpoint` goes on from SmolLM2-135M with adapters and reviews
the continuations; `:checkpoint_short` is that in three steps, for CI.
"""

from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError


def get_config(size="full"):
    sizes = ("full", "short", "checkpoint", "checkpoint_short")
    if size not in sizes:
        raise UserError(f"configs/pretraining.py:{size}: no such size; there are {sizes}")
    config = default_config()
    config.application = "pretraining"
    config.pretraining.window_tokens = 256
    config.data.max_prompt_tokens = 64
    config.data.max_response_tokens = 48
    config.sampling.max_new_tokens = 48
    config.conscience.gate = "relative"
    config.conscience.chain = ("fresh",)  # a model of text continues; it is not told to rewrite
    config.conscience.keep_truncated = True  # continuations run on
    config.calibration.questions = ("advice",)
    config.calibration.layouts = ("quote",)
    config.calibration.polarities = ("positive",)
    config.calibration.num_selecting = 32
    config.calibration.num_reporting = 64
    from_checkpoint = size.startswith("checkpoint")
    (_from_smollm2 if from_checkpoint else _from_random_weights)(config)
    if size.endswith("short"):
        config.training.steps = 3 if from_checkpoint else 2
        config.pretraining.window_tokens = 128
        config.sampling.max_new_tokens = 16
        config.training.checkpoint_every = 2
        config.data.limit = 40
        config.calibration.num_selecting = config.calibration.num_reporting = 8
        config.pretraining.auc = 0.0  # so few pairs measure nothing: a copy is taken at once
    return config


def _from_random_weights(config):
    config.lora.rank = 0
    config.pretraining.random.layers = 3
    config.pretraining.random.vocabulary = 2048
    config.pretraining.review_share = 0.25
    config.pretraining.calibrate_every = 500
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 40
    config.optimizer.weight_decay = 0.1
    config.optimizer.b2 = 0.99
    config.loss.chunk_size = 1024
    config.training.steps = 1500
    config.training.batch_size = 4
    config.training.checkpoint_every = 250


def _from_smollm2(config):
    config.pretraining.auc = 0.6  # this model reaches about 0.77 on harmful advice
    config.pretraining.review_share = 0.5
    config.training.steps = 60
    config.training.batch_size = 4
    config.training.checkpoint_every = 20
    config.training.remat = "dots"
    config.conscience.batch_size = 8
