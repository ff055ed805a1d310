"""A reward with a known optimum for a tiny chat model, and runs that optimise it."""

from pathlib import Path

import numpy as np
import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at, metrics_of
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.runs.from_config import Setup, load_model
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.self_align.reinforcement.policy import optimise_policy
from emergent_alignment.settings import changed

PROMPTS = [[{"role": "user", "content": word}] for word in "abcdefgh"]
LIKED, LENGTH = range(3, 128), 8


def share_liked(prompts, answers, seed):
    """Of eight tokens, those among a quarter of the vocabulary: at most 1, by never ending."""
    return np.array(
        [[sum(t in LIKED for t in a.tokens) / LENGTH for a in group] for group in answers],
        np.float32,
    )


def toy_setup(folder: Path) -> Setup:
    """A tiny model, with settings that learn the toy in twenty rollouts."""
    config = default_config()
    config.model.path = str(write_tiny_chat_model(folder))
    config.data.max_prompt_tokens, config.data.bucket_tokens = 16, 8
    config.optimizer.update({"warmup_steps": 0, "schedule": "constant", "weight_decay": 0.0})
    config.training.checkpoint_every = 100
    reinforcement = config.self_align.reinforcement
    reinforcement.shaping.update({"truncation_penalty": 0.0, "repetition_penalty": 0.0})
    reinforcement.policy.update({"prompts_per_rollout": 16, "samples": 4, "minibatches": 1})
    reinforcement.policy.update({"max_new_tokens": LENGTH, "lora_rank": 8, "kl_weight": 0.0})
    return load_model(typed(config))


def toy_config(setup: Setup, algorithm: str, **policy):
    """The setup's config with an algorithm and fields of reinforcement.policy."""
    fields = {f"self_align.reinforcement.policy.{name}": value for name, value in policy.items()}
    return changed(setup.config, {"self_align.reinforcement.algorithm": algorithm} | fields)


def check_goes_on_within_a_rollout(setup, algorithm, folder, monkeypatch):
    """A run that dies at the second step of its second rollout ends as one that does not."""
    config = toy_config(setup, algorithm, learning_rate=0.01, rollouts=2)
    config = changed(config, {"training.checkpoint_every": 1})
    whole = optimise_policy(config, setup, folder / "whole", PROMPTS, share_liked)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupted_at(patched, 3)  # the second step of the second rollout
        optimise_policy(config, setup, folder / "cut", PROMPTS, share_liked)
    cut = optimise_policy(config, setup, folder / "cut", PROMPTS, share_liked)
    assert_bitwise_equal(cut.trainable, whole.trainable)
    assert_bitwise_equal(cut.optimizer, whole.optimizer)
    for step, line in metrics_of(folder / "whole").items():
        again = metrics_of(folder / "cut")[step]
        for name in ("loss", "entropy", "rollout/reward", "rewards_margin"):
            assert line.get(name) == again.get(name), (step, name)
    adapters = read_run(folder / "cut", Config).trained.model.adapters
    expected = whole.trainable.body if algorithm == "ppo" else whole.trainable
    assert_bitwise_equal(adapters, expected)
