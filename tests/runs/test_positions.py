"""What is longer than a model can read is said before anything is computed with it."""

import dataclasses
import json

import pytest
from ml_collections import ConfigDict
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.data.chat import read_chat
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.judge_free import response_log_probs
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.streaming import stream_answer
from emergent_alignment.generation.text import generate
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.model import load
from emergent_alignment.models.rope_config import RopeScaling


@pytest.fixture(scope="module")
def short_model(tmp_path_factory):
    """A model of 96 positions."""
    directory = write_tiny_chat_model(tmp_path_factory.mktemp("model") / "short")
    path = directory / "config.json"
    content = json.loads(path.read_text()) | {"max_position_embeddings": 96}
    path.write_text(json.dumps(content))
    return directory


@pytest.fixture
def config(short_model, tmp_path) -> ConfigDict:
    """Two rows, of which one is long."""
    rows = [{"prompt": "Hi", "answer": "Yes " * 3}, {"prompt": "word " * 50, "answer": "No"}]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = default_config()
    config.model.path, config.data.train = str(short_model), str(data)
    config.training.steps, config.training.batch_size = 1, 2
    config.conscience.enabled = False
    return config


def test_a_row_that_is_too_long_is_said_before_the_run(config, tmp_path):
    with pytest.raises(
        UserError, match=r"takes \d+ tokens, and the model has 96 positions; lower "
    ):
        finetune(typed(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_reviews_that_may_be_too_long_are_said_before_the_run(config, tmp_path):
    config.data.max_prompt_tokens, config.data.max_response_tokens = 24, 8
    config.conscience.enabled, config.sampling.max_new_tokens = True, 8
    with pytest.raises(UserError, match="max_review_tokens.*1024 tokens.*set at most 96"):
        finetune(typed(config), tmp_path / "run")
    config.conscience.max_review_tokens, config.sampling.max_new_tokens = 96, 90
    with pytest.raises(UserError, match="longest prompt with its answer takes 1"):
        finetune(typed(config), tmp_path / "run")


def test_what_is_sampled_or_scored_beyond_the_positions_is_refused(short_model):
    model = load(str(short_model))
    asked = [[{"role": "user", "content": "word " * 40}]]
    with pytest.raises(UserError, match="with an answer of 90 takes .* positions; shorten"):
        generate(model, asked, max_new_tokens=90)
    chat = read_chat(model.tokenizer)
    with pytest.raises(UserError, match="has 96 positions"):
        next(stream_answer(model, model.policy, chat, [5] * 97, None, sampler_settings((2,), 1)))
    with pytest.raises(UserError, match="of 90 tokens with an answer of 7 takes 97"):
        response_log_probs(model, model.policy, [[5] * 90], [[[6] * 7]], None)


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        (None, 64),
        (RopeScaling("linear", 4.0), 256),
        (RopeScaling("yarn", 4.0, 32), 128),
        (RopeScaling("yarn", 4.0, 64), 256),
        (RopeScaling("llama3", 8.0, 16, low_freq_factor=1.0, high_freq_factor=4.0), 64),
        (RopeScaling("dynamic", 4.0), 64),
    ],
)
def test_a_row_may_be_as_long_as_the_rope_is_stretched(scaling, longest):
    config = ModelConfig("llama", 9, 8, 8, 1, 2, 2, 4, rope_scaling=scaling, max_positions=64)
    config.check_row(longest, "a row", "shorten it")
    with pytest.raises(UserError, match=f"a row takes {longest + 1} tokens.*{longest} positions"):
        config.check_row(longest + 1, "a row", "shorten it")


def test_dynamic_scaling_is_named_where_it_would_be_needed():
    config = ModelConfig("llama", 9, 8, 8, 1, 2, 2, 4, max_positions=64)
    config = dataclasses.replace(config, rope_scaling=RopeScaling("dynamic", 4.0))
    with pytest.raises(UserError, match="dynamic rope scaling beyond them is not supported"):
        config.check_row(65, "a row", "shorten it")
