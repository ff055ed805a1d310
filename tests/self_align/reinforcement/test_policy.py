"""Policy optimisation reaches a known optimum, and goes on in the middle of a rollout with the same
bits as if nothing had happened."""

import dataclasses

import numpy as np
import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at, metrics_of
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.applications.runs import read_run
from emergent_alignment.applications.setup import load_model
from emergent_alignment.config import default_config
from emergent_alignment.self_align.reinforcement.policy import _pairs, optimise_policy
from emergent_alignment.self_align.reinforcement.rollouts import (
    Rollout,
    minibatch,
    read_rollout,
    write_rollout,
)

PROMPTS = [[{"role": "user", "content": word}] for word in "abcdefgh"]
LIKED, LENGTH = range(3, 128), 8


def share_liked(prompts, answers, seed):
    """Of eight tokens, those among a quarter of the vocabulary: at most 1, by never ending."""
    return np.array(
        [[sum(t in LIKED for t in a.tokens) / LENGTH for a in group] for group in answers],
        np.float32,
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path_factory.mktemp("model")))
    config.data.max_prompt_tokens, config.data.bucket_tokens = 16, 8
    config.optimizer.update({"warmup_steps": 0, "schedule": "constant", "weight_decay": 0.0})
    config.training.checkpoint_every = 100
    reinforcement = config.self_align.reinforcement
    reinforcement.shaping.update({"truncation_penalty": 0.0, "repetition_penalty": 0.0})
    reinforcement.policy.update({"prompts_per_rollout": 16, "samples": 4, "minibatches": 1})
    reinforcement.policy.update({"max_new_tokens": LENGTH, "lora_rank": 8, "kl_weight": 0.0})
    return config, load_model(config)


@pytest.mark.parametrize("algorithm, rate, rollouts", [("ppo", 0.01, 22), ("grpo", 0.007, 22)])
def test_a_toy_reward_reaches_its_optimum(small, algorithm, rate, rollouts, tmp_path):
    config, setup = small
    config = config.copy_and_resolve_references()
    config.self_align.reinforcement.algorithm = algorithm
    config.self_align.reinforcement.policy.update({"learning_rate": rate, "rollouts": rollouts})
    optimise_policy(config, setup, tmp_path / "run", PROMPTS, share_liked)
    rewards = [line["rollout/reward"] for line in metrics_of(tmp_path / "run").values()]
    assert rewards[0] < 0.4 and rewards[-1] > 0.85, rewards
    first = metrics_of(tmp_path / "run")[0]
    # The policy that drew the answers is the frozen copy: its ratio is 1 and its KL 0.
    assert abs(first["kl"]) < 1e-6 and abs(first["rollout/kl_answer"]) < 1e-3
    assert first["clip_share"] == 0 and first["entropy"] > 1


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "dpo"])
def test_a_run_killed_within_a_rollout_ends_with_the_same_bits(
    small, algorithm, tmp_path, monkeypatch
):
    config, setup = small
    config = config.copy_and_resolve_references()
    config.training.checkpoint_every = 1
    config.self_align.reinforcement.algorithm = algorithm
    config.self_align.reinforcement.policy.update({"learning_rate": 0.01, "rollouts": 2})
    whole = optimise_policy(config, setup, tmp_path / "whole", PROMPTS, share_liked)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupted_at(patched, 3)  # the second step of the second rollout
        optimise_policy(config, setup, tmp_path / "cut", PROMPTS, share_liked)
    cut = optimise_policy(config, setup, tmp_path / "cut", PROMPTS, share_liked)
    assert_bitwise_equal(cut.trainable, whole.trainable)
    assert_bitwise_equal(cut.optimizer, whole.optimizer)
    for step, line in metrics_of(tmp_path / "whole").items():
        again = metrics_of(tmp_path / "cut")[step]
        for name in ("loss", "entropy", "rollout/reward", "rewards_margin"):
            assert line.get(name) == again.get(name), (step, name)
    adapters = read_run(tmp_path / "cut", base=setup).trained.model.adapters
    expected = whole.trainable.body if algorithm == "ppo" else whole.trainable
    assert_bitwise_equal(adapters, expected)


def random_rollout(prompts=5, samples=3, tokens=4) -> Rollout:
    draw = np.random.default_rng(0)
    shape = (prompts, samples, tokens)
    return Rollout(
        draw.integers(0, 9, (prompts, 6)).astype(np.int32),
        np.full(prompts, 6, np.int32),
        draw.integers(0, 9, shape).astype(np.int32),
        draw.integers(1, tokens + 1, shape[:2]).astype(np.int32),
        *(draw.standard_normal(shape).astype(np.float32) for _ in range(5)),
        draw.standard_normal(shape[:2]).astype(np.float32),
        np.array('{"rollout/reward": 0.25}'),
    )


def test_a_rollout_is_read_back_as_it_was(tmp_path):
    rollout = random_rollout()
    write_rollout(tmp_path / "a" / "0.npz", rollout)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["0.npz"]
    for field in dataclasses.fields(Rollout):
        ours, theirs = (
            getattr(found, field.name) for found in (rollout, read_rollout(tmp_path / "a/0.npz"))
        )
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_each_epoch_takes_every_prompt_once_in_an_order_of_its_own():
    parts = [minibatch(12, 4, (0, 7), place).tolist() for place in range(6)]
    for epoch in (parts[:3], parts[3:]):
        assert sorted(sum(epoch, [])) == list(range(12))
    assert parts[:3] != parts[3:]
    assert minibatch(12, 4, (0, 8), 0).tolist() != parts[0]


def test_a_pair_is_the_best_over_the_worst_answer_of_a_group():
    rollout = random_rollout()
    rollout.rewards[2] = 0.5
    places = np.array([0, 2, 4])
    batch = _pairs(rollout, places)
    assert batch.pair_mask.tolist() == [True, False, True]
    for row, place in enumerate(places):
        ends = rollout.rewards[place].argmax(), rollout.rewards[place].argmin()
        for role, end in zip((batch.roles.chosen, batch.roles.rejected), ends):
            np.testing.assert_array_equal(batch.branches[row, role], rollout.branches[place, end])
            summed = rollout.reference[place, end].sum()
            np.testing.assert_allclose(batch.reference[row, role], summed, rtol=1e-6)
