"""SmolLM2-135M-Instruct against hostile prompts, with its conscience: minutes on two CPU cores.

`configs/adversarial.py:short` is the same on the same real model, with so few prompts and steps
that it only shows that everything works.
"""

from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError


def get_config(size="full"):
    if size not in ("full", "short"):
        raise UserError(f"configs/adversarial.py:{size}: no such size; there are full and short")
    config = default_config()
    config.application = "adversarial"
    config.adversarial.pool = 32
    config.optimizer.learning_rate = 5e-4
    config.training.steps = 24
    config.training.checkpoint_every = 8
    config.training.remat = "dots"
    config.data.bucket_tokens = 64  # few widths: each is a program to compile
    # What a weak reviewer has: it tells two answers apart better than one from a threshold.
    config.conscience.gate = "relative"
    config.conscience.chain = ("fresh",)
    # Its answers are long-winded: one that ran into the limit is still a better answer.
    config.conscience.keep_truncated = True
    config.conscience.batch_size = 8
    config.sampling.max_new_tokens = 48
    config.sampling.temperature = 0.7
    config.evaluation.max_new_tokens = 48
    if size == "short":
        config.adversarial.rounds = 2
        config.adversarial.pool = 4
        config.data.limit = 8
        config.data.max_prompt_tokens = 64  # one width: each is a program to compile
        config.conscience.max_review_tokens = 192
        config.conscience.batch_size = 2  # as many rows as a step has: the same programs
        config.sampling.max_new_tokens = 12
        config.training.steps = 3
        config.training.batch_size = 2
        config.training.checkpoint_every = 2
        config.evaluation.limit = 4
        config.evaluation.max_new_tokens = 12
    return config
