"""A reward model learns what pairs differ in, reads its score off the answer's end, and goes on
after a kill with the same bits."""

import dataclasses

import numpy as np
import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError
from emergent_alignment.runs.from_config import load_model
from emergent_alignment.runs.training_run import step_settings
from emergent_alignment.self_align.reinforcement.preferences import Preference, split
from emergent_alignment.self_align.reinforcement.reward_model import ends_of
from emergent_alignment.self_align.reinforcement.reward_training import (
    told_apart_share,
    train_reward_model,
)
from emergent_alignment.settings import changed
from emergent_alignment.training.checkpoints import Checkpoints

WORDS = ("boat", "tree", "house", "river", "cloud")


def polite_pairs(count=48):
    """The chosen answer ends with thanks, whatever stands before."""
    draw = np.random.default_rng(0)

    def text():
        return " ".join(draw.choice(WORDS, 2))

    return [
        Preference(
            ({"role": "user", "content": f"{text()} {i}?"},), f"{text()} thanks", f"{text()} no"
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path_factory.mktemp("model")))
    config.data.buckets = 1
    config.data.max_prompt_tokens = config.data.max_response_tokens = 32
    config.training.checkpoint_every = 4
    config.optimizer.warmup_steps = 0
    wanted = config.self_align.reinforcement.reward_model
    wanted.update({"batch_size": 8, "epochs": 3.0, "learning_rate": 0.02, "held_out_share": 0.25})
    return load_model(typed(config))


@pytest.mark.parametrize("backbone", [pytest.param("lora", marks=pytest.mark.long), "frozen"])
def test_it_tells_held_out_pairs_apart_and_resumes_with_the_same_bits(
    small, backbone, tmp_path, monkeypatch
):
    setup = small
    config = changed(setup.config, {"self_align.reinforcement.reward_model.backbone": backbone})
    pairs, held_out = split(polite_pairs(), 0.25)
    model, measured = train_reward_model(config, setup, tmp_path / "whole", pairs, held_out)
    assert measured["accuracy"]["value"] > 0.9, measured
    assert measured["held_out"] == len(held_out) and measured["pairs"] == len(pairs)
    assert (model.trainable.body == {}) == (backbone == "frozen")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupted_at(patched, 12)
        train_reward_model(config, setup, tmp_path / "cut", pairs, held_out)
    assert Checkpoints(tmp_path / "cut" / "checkpoints", None).latest() in (8, 12)
    again, measured_again = train_reward_model(config, setup, tmp_path / "cut", pairs, held_out)
    assert_bitwise_equal(again.trainable, model.trainable)
    assert measured_again == measured


def test_a_score_does_not_depend_on_what_it_is_scored_beside(small, tmp_path):
    setup = small
    # Scores stay small: float32 then holds them as finely as they are compared.
    changes = {"epochs": 1.0, "learning_rate": 0.005}
    at = "self_align.reinforcement.reward_model"
    config = changed(setup.config, {f"{at}.{name}": value for name, value in changes.items()})
    pairs, held_out = split(polite_pairs(), 0.25)
    model, _ = train_reward_model(config, setup, tmp_path / "run", pairs, held_out)
    chat = setup.chat
    rows = [
        (chat.prompt_tokens(list(one.prompt)), [chat.response_tokens(one.chosen)])
        for one in held_out
    ]
    together = model.raw(rows)[:, 0]
    alone = np.array([model.raw([row], size=1)[0, 0] for row in rows[:3]])
    np.testing.assert_allclose(together[:3], alone, atol=1e-5)
    np.testing.assert_allclose(model.raw(rows[:3])[:, 0], alone, atol=1e-5)
    hidden = setup.model.hidden(
        setup.model.policy if not model.trainable.body else _policy(model),
        np.array([rows[0][0] + rows[0][1][0]]),
    )
    by_hand = hidden[0, -1] @ model.trainable.weight + model.trainable.bias
    np.testing.assert_allclose(together[0], by_hand, atol=1e-5)


def test_what_is_beyond_the_positions_is_not_scored(small):
    short = dataclasses.replace(small.model.config, max_positions=16)
    short = dataclasses.replace(small, model=dataclasses.replace(small.model, config=short))
    settings = step_settings(small.config, small)
    assert ends_of(short, settings, [([5] * 8, [[6] * 8, [7]])]).shape == (1, 2, 32)
    with pytest.raises(UserError, match="takes 17 tokens, and the model has 16 positions; lower"):
        ends_of(short, settings, [([5] * 8, [[6] * 9, [7]])])


def _policy(model):
    from emergent_alignment.models.lora import attach

    return attach(model.setup.model.params, model.trainable.body, model.settings.lora)


def test_no_pairs_on_a_side_is_said_before_training(small, tmp_path):
    setup = small
    with pytest.raises(UserError, match="48 pairs to train on and 0 held out"):
        train_reward_model(setup.config, setup, tmp_path / "run", polite_pairs(), [])
    assert not (tmp_path / "run").exists()


def test_ties_are_half_told_apart():
    found = told_apart_share(np.array([1.0, 0.0, 2.0]), np.array([0.0, 0.0, 3.0]))
    assert found.value == 0.5 and found.n == 3
