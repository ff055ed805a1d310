"""What config.self_align.reinforcement may say, and the files of principles that it names."""

import math
from importlib import resources
from typing import get_args

from ml_collections import ConfigDict

from emergent_alignment.errors import UserError
from emergent_alignment.self_align.answers.guidance import BUNDLED, Principle, read_principles
from emergent_alignment.self_align.reinforcement.comparing import Orders
from emergent_alignment.self_align.reinforcement.rl_losses import (
    Normalization,
    RatioLevel,
    Scale,
)
from emergent_alignment.self_align.stages import field_of

SECTION = "config.self_align.reinforcement"
CHOICES = {
    "form": ("rlhf", "verbose"),
    "algorithm": ("ppo", "grpo", "dpo"),
    "reward": ("model", "principles"),
    "preferences.orders": get_args(Orders),
    "reward_model.backbone": ("lora", "frozen"),
    "policy.normalization": get_args(Normalization),
    "policy.ratio": get_args(RatioLevel),
    "policy.scale": get_args(Scale),
}
RANGES = (
    (
        "preferences.max_new_tokens preferences.principles preferences.batch_size "
        "reward_model.epochs reward_model.batch_size policy.rollouts policy.prompts_per_rollout "
        "policy.samples policy.epochs policy.minibatches policy.max_new_tokens "
        "shaping.score_clip verbose.max_new_tokens policy.clip policy.clip_high policy.value_clip",
        lambda value: value > 0,
        "more than 0",
    ),
    (
        "prompt_limit preferences.limit preferences.temperature reward_model.learning_rate "
        "policy.learning_rate policy.lora_rank policy.kl_weight policy.value_weight "
        "policy.entropy_weight shaping.truncation_penalty shaping.repetition_penalty verbose.limit "
        "verbose.min_words",
        lambda value: value >= 0,
        "0 or more",
    ),
    ("preferences.negated_share", lambda value: 0 <= value <= 1, "a share, 0 to 1"),
    ("reward_model.held_out_share", lambda value: 0 < value < 1, "more than 0 and under 1"),
    ("policy.discount policy.decay", lambda value: 0 <= value <= 1, "in [0, 1]"),
    ("preferences.top_p", lambda value: 0 < value <= 1, "more than 0 and at most 1"),
    ("shaping.length_bonus", math.isfinite, "a finite number"),
)


def check_settings(config: ConfigDict) -> None:
    """Raise UserError for the first setting that cannot be meant."""
    wanted = config.self_align.reinforcement
    for name, known in CHOICES.items():
        value = field_of(wanted, name)
        if value not in known:
            raise UserError(f"{SECTION}.{name}: {value!r} is unknown; known: {', '.join(known)}")
    for names, fits, words in RANGES:
        for name in names.split():
            value = field_of(wanted, name)
            if not fits(value):
                raise UserError(f"{SECTION}.{name} must be {words}, not {value}")
    if wanted.form == "rlhf":
        _check_policy(config)


def _check_policy(config: ConfigDict) -> None:
    wanted, policy = config.self_align.reinforcement, config.self_align.reinforcement.policy
    compared = wanted.algorithm != "ppo" or wanted.reward == "principles"
    if policy.samples < 2 and compared:
        who = wanted.algorithm if wanted.algorithm != "ppo" else "the reward by principles"
        raise UserError(
            f"{SECTION}.policy.samples: {who} compares the answers to a prompt; set 2 or more"
        )
    if policy.prompts_per_rollout % policy.minibatches:
        raise UserError(
            f"{SECTION}.policy.minibatches: {policy.minibatches} does not divide "
            f"prompts_per_rollout {policy.prompts_per_rollout}"
        )
    size = policy.prompts_per_rollout // policy.minibatches
    if size % config.training.accumulation:
        raise UserError(
            f"config.training.accumulation: {config.training.accumulation} does not divide the "
            f"{size} prompts of a minibatch ({SECTION}.policy)"
        )
    if config.model.frozen_dtype and not policy.lora_rank:
        raise UserError(
            f"{SECTION}.policy.lora_rank: 0 trains all parameters, which would start from the "
            'base as it is on disk, not from the engraved model; set config.model.frozen_dtype="" '
            "or a rank"
        )


def read_guards(config: ConfigDict) -> tuple[Principle, ...]:
    """The principles against hacking the reward; none where the config names no file."""
    source = config.self_align.reinforcement.shaping.guards
    if not source:
        return ()
    if source != BUNDLED:
        return read_principles(source)
    with resources.as_file(resources.files(__package__).joinpath("guards.yaml")) as path:
        return read_principles(str(path))
