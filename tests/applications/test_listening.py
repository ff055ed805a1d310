"""Ways to correct, prompts to listen to, rounds and their replay, and λ as a price, on a tiny chat
model: each resumes to the bit, and does what it says."""

import json

import numpy as np
import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at, metrics_of
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError

POLICY = {"loss.reference": "policy"}
WAYS = {
    "self": {"conscience.chain": ("self",)},
    "best": {"conscience.chain": ("best",), "conscience.samples": 3} | POLICY,
    "self against the policy": {"conscience.chain": ("self", "fresh")} | POLICY,
    "pool": {"conscience.prompts": "pool", "conscience.pool_rows": 2},
    "both, with replay": {
        "conscience.prompts": "both",
        "conscience.pool_rows": 2,
        "conscience.every": 2,
        "conscience.replay": 4,
    },
    "auto": {"loss.alignment_weight": "auto", "loss.price.yardstick": 6},
    "auto, replayed": {
        "loss.alignment_weight": "auto",
        "conscience.every": 2,
        "conscience.yardstick_every": 1,
    },
}


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    return write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def config(model_directory):
    """Four steps of four rows; every candidate is corrected, so that there are pairs."""
    config = default_config()
    config.model.path = str(model_directory)
    config.data.limit = 10
    config.data.buckets = 1
    config.data.max_prompt_tokens = 48
    config.data.max_response_tokens = 48
    config.conscience.gate = "relative"
    config.conscience.chain = ("fresh",)
    config.conscience.keep_truncated = True
    config.conscience.batch_size = 4
    config.conscience.max_review_tokens = 160
    config.sampling.max_new_tokens = 8
    config.training.steps = 4
    config.training.batch_size = 4
    config.training.checkpoint_every = 1
    config.optimizer.learning_rate = 1e-2
    return config


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_ends_with_the_bits_of_an_undisturbed_one(config, tmp_path, monkeypatch, way):
    config.update_from_flattened_dict(WAYS[way])
    undisturbed = finetune(typed(config), tmp_path / "one")
    with monkeypatch.context() as patched:
        interrupted_at(patched, 3)
        with pytest.raises(Killed):
            finetune(typed(config), tmp_path / "two")
    assert_bitwise_equal(finetune(typed(config), tmp_path / "two"), undisturbed)
    ours, theirs = metrics_of(tmp_path / "two"), metrics_of(tmp_path / "one")
    for step, values in theirs.items():
        timeless = {k: v for k, v in values.items() if "second" not in k}
        assert {k: v for k, v in ours[step].items() if "second" not in k} == timeless
    journals = [read_journal(tmp_path / name / "journal") for name in ("one", "two")]
    assert journals[0] == journals[1]
    assert any(record["outcome"].startswith("revised") for record in journals[0])
