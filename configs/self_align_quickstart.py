"""SELF-ALIGN on SmolLM2-135M: all four stages in some minutes on two CPU cores.

It shows that everything works; a model so small follows the principles' format now and then, and
what is kept of it says so. `configs/self_align_quickstart.py:short` is the same on the same real
model, with so few instructions and steps that all four stages take about three minutes.
"""

from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError

FILE = "configs/self_align_quickstart.py"


def get_config(size="full"):
    if size not in ("full", "short"):
        raise UserError(f"{FILE}:{size}: no such size; there are full and short")
    config = default_config()
    config.data.max_prompt_tokens = 128
    config.data.max_response_tokens = 160
    config.data.buckets = 1  # so few steps do not pay for compiling more than one shape
    config.training.remat = "dots"
    config.training.checkpoint_every = 8
    config.self_align.instructions.update(
        {"wanted": 96, "rounds": 24, "prompts_per_round": 16, "kind_limit": 8}
    )
    config.self_align.instructions.update(
        {"topics_per_kind": 3, "topic_rounds": 2, "max_new_tokens": 128, "max_topic_tokens": 48}
    )
    config.self_align.answers.update({"limit": 128, "max_new_tokens": 160, "temperature": 0.5})
    # Its answers are long-winded: one that ran into the limit is still worth learning, and is
    # learnt without an end token.
    config.self_align.answers.require_end = False
    config.self_align.engraving.update({"batch_size": 8, "epochs": 2.0, "learning_rate": 1e-3})
    reinforcement = config.self_align.reinforcement
    reinforcement.prompt_limit = 64
    # Asked which of two answers is better, it says A, whatever A is: no preference in both orders.
    # Safe answers over harmful ones stand in for people's preferences.
    reinforcement.preferences.update({"source": "harmful_advice", "limit": 96})
    reinforcement.reward_model.update({"batch_size": 8, "held_out_share": 0.25})
    reinforcement.policy.update(
        {"rollouts": 8, "prompts_per_rollout": 8, "max_new_tokens": 48, "epochs": 1}
    )
    if size == "short":
        _shorten(config)
    return config


def _shorten(config):
    """The same in three minutes: a handful of everything."""
    config.training.checkpoint_every = 1
    config.data.max_prompt_tokens = 64
    config.data.max_response_tokens = 64
    config.conscience.batch_size = (
        4  # no more than there are of anything: rows of padding cost, too
    )
    config.self_align.instructions.update({"wanted": 4, "rounds": 8, "prompts_per_round": 4})
    config.self_align.instructions.update(
        {"kind_limit": 1, "topics_per_kind": 1, "topic_rounds": 1, "max_new_tokens": 64}
    )
    config.self_align.answers.update({"limit": 8, "max_new_tokens": 64, "min_words": 5})
    config.self_align.engraving.update({"steps": 2, "batch_size": 2})
    reinforcement = config.self_align.reinforcement
    reinforcement.prompt_limit = 8
    reinforcement.preferences.limit = 8
    reinforcement.reward_model.update({"backbone": "frozen", "batch_size": 4})
    reinforcement.policy.update({"rollouts": 1, "prompts_per_rollout": 4, "max_new_tokens": 16})
    config.choices.update({"limit": 2, "batch_size": 2})
