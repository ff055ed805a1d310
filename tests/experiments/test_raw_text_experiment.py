"""An experiment whose arms train from raw text, from a model's weights and from random ones."""

import json

import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.main import main

pytestmark = pytest.mark.long

ARMS = (
    "base",
    "plain: conscience.enabled=False",
    "conscience",
    "scratch: conscience.enabled=False pretraining.random.layers=1",
)
SETTINGS = {
    "application": "pretraining",
    "lora.rank": 0,
    "data.max_prompt_tokens": 16,
    "data.max_response_tokens": 8,
    "pretraining.window_tokens": 32,
    "pretraining.heldout_share": 0.0,
    "pretraining.review_share": 0.5,
    "pretraining.auc": 0.0,
    "pretraining.random.width": 32,
    "pretraining.random.heads": 4,
    "pretraining.random.kv_heads": 2,
    "pretraining.random.inner": 64,
    "pretraining.random.vocabulary": 320,
    "conscience.gate": "relative",
    "conscience.chain": "('fresh',)",
    "conscience.keep_truncated": True,
    "conscience.batch_size": 4,
    "conscience.max_review_tokens": 160,
    "sampling.max_new_tokens": 8,
    "training.steps": 2,
    "training.batch_size": 4,
    "calibration.questions": "('advice',)",
    "calibration.layouts": "('quote',)",
    "calibration.polarities": "('positive',)",
    "calibration.num_selecting": 4,
    "calibration.num_reporting": 4,
    "evaluation.limit": 4,
    "evaluation.samples": 4,
    "evaluation.max_new_tokens": 8,
    "experiment.arms": str(ARMS),
    "experiment.seeds": "(0,)",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    model = write_tiny_chat_model(folder / "model")
    (folder / "corpus").mkdir()
    (folder / "corpus" / "a.txt").write_text("The ferry leaves at nine. " * 60)
    words = ["experiment", "--root", str(folder / "root"), f"--config.model.path={model}"]
    words += [f"--config.pretraining.corpus={folder / 'corpus'}"]
    words += [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    assert main(words) == 0
    return folder / "root" / "seed-0"


def test_every_arm_is_trained_and_evaluated(root):
    evaluated = {
        name: json.loads((root / name / "evaluation.json").read_text())
        for name in ("base", "plain", "conscience", "scratch")
    }
    losses = {name: found["task_loss"]["value"] for name, found in evaluated.items()}
    assert len(set(losses.values())) == 4
    for name in ("plain", "conscience", "scratch"):
        rows = (root / name / "metrics.jsonl").read_text().splitlines()
        assert len(rows) == SETTINGS["training.steps"]
    assert "frozen_step" in (root / "conscience" / "metrics.jsonl").read_text()


def test_an_arm_from_random_weights_is_compared_with_what_it_began_from(root):
    found = json.loads((root / "scratch" / "evaluation.json").read_text())
    assert found["model"].endswith("start") and abs(found["kl"]["value"]) < 1.0
