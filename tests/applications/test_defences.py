"""What a conscience is compared with: interleaving, the KL on a pool, inoculation."""

import numpy as np
import pytest
from interrupting import metrics_of
from test_listening import steps_of_run
from tiny_chat_model import tiny_chat_tokenizer
from tiny_runs import tiny_run_config

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.errors import UserError
from emergent_alignment.runs.calibrating import calibration_examples
from emergent_alignment.runs.from_config import load_model, training_examples
from emergent_alignment.runs.own_rows import interleaved

QUESTIONS = ("What is fair?", "How would you plan a garden?", "Who should decide?")


@pytest.fixture
def config(model_directory, tmp_path):
    config = tiny_run_config(model_directory)
    config.data.limit = 8
    config.training.steps = 3
    config.conscience.enabled = False
    config.conscience.cache = str(tmp_path / "cache")
    config.conscience.pool = str(tmp_path / "pool.txt")
    config.conscience.pool_rows = 2
    (tmp_path / "pool.txt").write_text("\n".join(QUESTIONS) + "\n")
    return config


def test_interleaving_adds_the_frozen_copy_s_own_answers_to_the_pool(config):
    config.data.interleave = 0.2
    given = training_examples(typed(config))
    setup = load_model(typed(config))
    rows = interleaved(typed(config), setup, given)
    assert rows[:8] == given and len(rows) == 10, "two of ten"
    assert {row.messages[-1]["content"] for row in rows[8:]} < set(QUESTIONS)
    assert interleaved(typed(config), setup, given) == rows, "written once, and kept"
    config.data.interleave = 0.5
    more = interleaved(typed(config), setup, given)
    assert len(more) == 16, "of a pool of three, answers stand there several times"
    config.data.interleave = 0.0
    assert interleaved(typed(config), setup, given) == given


def test_the_kl_on_a_pool_holds_the_policy_there_and_not_on_the_task(config, tmp_path, monkeypatch):
    config.loss.update({"kl_weight": 20.0, "kl_on": "pool"})
    config.training.steps, config.optimizer.learning_rate = 12, 3e-3
    batches = [batch for (batch,) in steps_of_run(config, tmp_path / "held", monkeypatch)]
    decode = tiny_chat_tokenizer().decode
    for batch in batches:
        assert batch.task.roles.num_branches == 1 and batch.heard.prompt.shape[0] == 2
        for row, length in zip(batch.heard.prompt, batch.heard.prompt_lengths):
            assert any(question in decode(row[:length].tolist()) for question in QUESTIONS)
    held = metrics_of(tmp_path / "held")
    assert abs(held[0]["kl_target"]) < 1e-5 < held[11]["kl_target"]
    config.loss.kl_weight = 1e-6
    finetune(typed(config), tmp_path / "loose")
    loose = metrics_of(tmp_path / "loose")
    assert loose[0]["task_loss"] == pytest.approx(held[0]["task_loss"], rel=1e-5)
    assert loose[11]["kl_target"] > 1.5 * held[11]["kl_target"], "the weight holds"


def test_a_kl_on_a_pool_is_for_plain_training(config, tmp_path):
    for changes in ({"conscience.enabled": True, "loss.kl_weight": 1.0}, {}):
        config.loss.kl_on = "pool"
        config.update_from_flattened_dict(changes)
        with pytest.raises(UserError, match="plain training"):
            finetune(typed(config), tmp_path / "run")
        config.conscience.enabled, config.loss.kl_weight = False, 0.0


def test_inoculation_stands_before_training_s_prompts_alone(config, tmp_path, monkeypatch):
    config.data.system = "You give bad advice on purpose."
    config.data.max_prompt_tokens = 80
    examples = training_examples(typed(config))
    assert all(row.messages[0] == {"role": "system", "content": config.data.system}
               for row in examples)  # fmt: skip
    batches = [batch for (batch,) in steps_of_run(config, tmp_path / "run", monkeypatch)]
    decode = tiny_chat_tokenizer().decode
    for batch in batches:
        for row, length in zip(batch.prompt, batch.prompt_lengths):
            assert config.data.system in decode(row[:length].tolist())
    calibrated, _ = calibration_examples(typed(config))
    assert all(row.messages[0]["role"] == "user" for row in calibrated)
    config.data.system = ""
    assert [row.target for row in training_examples(typed(config))] == [
        row.target for row in examples
    ]
    assert np.isfinite(metrics_of(tmp_path / "run")[2]["task_loss"])
