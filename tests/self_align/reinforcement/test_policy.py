"""Policy optimisation goes on in the middle of a rollout with the same bits as if nothing had
happened; what a rollout and its minibatches are. That it reaches an optimum: tests/slow."""

import dataclasses

import numpy as np
import pytest
from toy_reward import check_goes_on_within_a_rollout, toy_setup

from emergent_alignment.self_align.reinforcement.policy import _pairs
from emergent_alignment.self_align.reinforcement.rollouts import (
    Rollout,
    minibatch,
    read_rollout,
    write_rollout,
)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return toy_setup(tmp_path_factory.mktemp("model"))


@pytest.mark.long
def test_a_run_killed_within_a_rollout_ends_with_the_same_bits(setup, tmp_path, monkeypatch):
    check_goes_on_within_a_rollout(setup, "ppo", tmp_path, monkeypatch)


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
