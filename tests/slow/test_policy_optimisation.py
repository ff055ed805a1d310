"""Policy optimisation reaches a known optimum, by each algorithm, and goes on after a kill."""

import dataclasses

import pytest
from interrupting import assert_bitwise_equal, metrics_of
from toy_reward import (
    PROMPTS,
    check_goes_on_within_a_rollout,
    share_liked,
    toy_config,
    toy_setup,
)

from emergent_alignment.config import Config
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.self_align.reinforcement.policy import optimise_policy


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return toy_setup(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("algorithm, rate, rollouts", [("ppo", 0.01, 34), ("grpo", 0.007, 22)])
def test_a_toy_reward_reaches_its_optimum(setup, algorithm, rate, rollouts, tmp_path):
    config = toy_config(setup, algorithm, learning_rate=rate, rollouts=rollouts)
    optimise_policy(config, setup, tmp_path / "run", PROMPTS, share_liked)
    rewards = [line["rollout/reward"] for line in metrics_of(tmp_path / "run").values()]
    assert rewards[0] < 0.4 and rewards[-1] > 0.85, rewards
    first = metrics_of(tmp_path / "run")[0]
    # The policy that drew the answers is the frozen copy: its ratio is 1 and its KL 0.
    assert abs(first["kl"]) < 1e-6 and abs(first["rollout/kl_answer"]) < 1e-3
    assert first["clip_share"] == 0 and first["entropy"] > 1


@pytest.mark.parametrize("algorithm", ["grpo", "dpo"])
def test_a_run_killed_within_a_rollout_ends_with_the_same_bits(
    setup, algorithm, tmp_path, monkeypatch
):
    check_goes_on_within_a_rollout(setup, algorithm, tmp_path, monkeypatch)


def test_a_run_on_top_of_another_is_read_with_that_one_as_its_base(setup, tmp_path):
    config = toy_config(setup, "grpo", learning_rate=0.01, rollouts=1)
    optimise_policy(config, setup, tmp_path / "first", PROMPTS, share_liked)
    first = read_run(tmp_path / "first", Config).trained
    start = dataclasses.replace(setup, model=first.model.merged())
    second = tmp_path / "second"
    optimise_policy(config, start, second, PROMPTS, share_liked, base_run=tmp_path / "first")
    found = read_run(second, Config)
    assert_bitwise_equal(found.base.model.params, start.model.params)
    assert found.trained.model.adapters is not None
