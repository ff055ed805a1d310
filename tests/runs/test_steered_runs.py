"""Runs that are steered: by the difference between matched answers, in training alone."""

import jax
import numpy as np
import pytest
import reference_decoder
from interrupting import Killed, assert_bitwise_equal, interrupted_at, metrics_of
from tiny_runs import tiny_run_config

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config
from emergent_alignment.errors import UserError
from emergent_alignment.runs import training_run
from emergent_alignment.runs.from_config import load_model, training_examples
from emergent_alignment.runs.steering import steering_shift
from emergent_alignment.runs.training_run import Training, train
from emergent_alignment.runs.workdir import read_run


@pytest.fixture
def config(model_directory):
    config = tiny_run_config(model_directory)
    config.conscience.enabled = False
    config.steering.coefficient = 3.0
    return config


def frozen_of_steps(monkeypatch):
    """The frozen parameters that each run's steps are given."""
    given, loop = [], training_run.run

    def looped(settings, recording, make_input, step, state, frozen, **options):
        given.append(frozen)
        return loop(settings, recording, make_input, step, state, frozen, **options)

    monkeypatch.setattr(training_run, "run", looped)
    return given


@pytest.mark.parametrize("layer", [0, 2])
def test_the_shift_is_the_difference_of_means_over_the_answers_tokens(config, layer):
    config.steering.layer = layer
    config = typed(config)
    setup, examples = load_model(config), training_examples(config)[:5]
    shift = steering_shift(config.steering, setup.model, setup.chat, examples, config.data)
    chat, model, means = setup.chat, setup.model, {"harmful": [], "safe": []}
    at = layer or 1  # the middle one of two
    for one in examples:
        prompt = chat.prompt_tokens(one.messages)[-config.data.max_prompt_tokens :]
        for side, rows in means.items():
            answer = chat.response_tokens(getattr(one, side))[: config.data.max_response_tokens]
            stream = reference_decoder.residual(model.config, model.params, prompt + answer, at)
            rows.append(stream[len(prompt) :].mean(0))
    expected = 3.0 * (np.mean(means["harmful"], 0) - np.mean(means["safe"], 0))
    np.testing.assert_allclose(shift[at - 1], expected, rtol=1e-3, atol=1e-5)
    assert not np.delete(np.asarray(shift), at - 1, 0).any()


def test_training_is_steered_and_what_comes_of_it_is_not(config, tmp_path, monkeypatch):
    given = frozen_of_steps(monkeypatch)
    setup = load_model(typed(config))
    finetune(typed(config), tmp_path / "steered", setup=setup)
    config.steering.coefficient = 0.0
    finetune(typed(config), tmp_path / "plain", setup=setup)
    steered, plain = given
    assert plain is setup.model.params, "the very program of a run without steering"
    base = {name: tree for name, tree in steered.items() if name != "steering"}
    for ours, held in zip(jax.tree.leaves(base), jax.tree.leaves(setup.model.params), strict=True):
        assert ours is held
    losses = [metrics_of(tmp_path / name)[0]["task_loss"] for name in ("steered", "plain")]
    assert abs(losses[0] - losses[1]) > 1e-4
    runs = [read_run(tmp_path / name, Config) for name in ("steered", "plain")]
    trees = [jax.tree.structure(run.trained.model.policy) for run in runs]
    assert trees[0] == trees[1], "a trained model has nothing of the shift in it"


def test_a_steered_run_goes_on_with_the_bits_of_an_undisturbed_one(config, tmp_path, monkeypatch):
    config.training.checkpoint_every = 1
    whole = finetune(typed(config), tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupted_at(patched, 2)
        with pytest.raises(Killed):
            finetune(typed(config), tmp_path / "cut")
    assert_bitwise_equal(finetune(typed(config), tmp_path / "cut"), whole)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conscience.enabled": True}, "config.steering is for plain training"),
        ({"loss.kl_weight": 0.1}, "config.steering is for plain training"),
        ({"steering.layer": 3}, "config.steering.layer: the model has 2 layers, and no layer 3"),
        ({"data.train": "rows.jsonl"}, "rows.jsonl: no row has a safe and a harmful answer"),
    ],
)
def test_what_cannot_be_steered_is_one_line(config, tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Hi?", "answer": "Hello. Yes."}\n' * 4)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=said) as refused:
        finetune(typed(config), tmp_path / "run")
    assert len(str(refused.value).splitlines()) == 1 and not (tmp_path / "run").exists()


def test_an_application_that_steers_nothing_refuses(config, tmp_path):
    with pytest.raises(UserError, match="only fine-tuning on rows is steered"):
        train(typed(config), tmp_path / "run", None, Training("", lambda run: None))
