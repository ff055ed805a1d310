"""Fine-tuning whose candidates a server samples: a real process on loopback with a tiny model."""

import numpy as np
import pytest
from interrupting import metrics_of
from rollout_engine import engine
from tiny_runs import tiny_run_config

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.errors import Unreachable, UserError
from emergent_alignment.generation.endpoint import Endpoint
from emergent_alignment.generation.rollout_server import RolloutServer
from emergent_alignment.runs.rollouts import LARGE_GAP, log_prob_gap

LORA = {"lora.rank": 4, "lora.alpha": 64.0}


@pytest.fixture
def config(model_directory, tmp_path):
    """Four steps of `best` in the policy's own answers, with adapters."""
    config = tiny_run_config(model_directory)
    config.conscience.update({"chain": ("best",), "samples": 2, "prompts": "task"})
    config.loss.reference = "policy"
    config.sampling.engine = "endpoint"
    config.sampling.endpoint.weights = str(tmp_path / "weights")
    config.sampling.endpoint.base_url = "http://127.0.0.1:9/v1"
    config.sampling.endpoint.model = "base"
    config.sampling.endpoint.retries = 0
    (tmp_path / "weights").mkdir()
    config.update_from_flattened_dict(LORA)
    return config


def gaps(workdir) -> list[float]:
    return [values["engine/log_prob_gap"] for values in metrics_of(workdir).values()]


@pytest.mark.long
@pytest.mark.parametrize("flags", [(), ("--tokens",), ("--sglang", "--tokens")])
def test_what_the_server_says_of_its_answers_is_what_the_policy_says(
    config, model_directory, tmp_path, flags
):
    with engine(model_directory, *flags) as (address, _):
        config.sampling.endpoint.base_url = address
        config.sampling.endpoint.load = "sglang" if "--sglang" in flags else "vllm"
        finetune(typed(config), tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert len(metrics) == 4
    if "--tokens" in flags:  # else a text of random tokens is read as others
        assert max(gaps(tmp_path / "run")) < 1e-4
    assert [values["engine/steps_behind"] for values in metrics.values()] == [0, 0, 0, 0]
    journal = read_journal(tmp_path / "run" / "journal")
    assert any(record["outcome"] == "revised_best" for record in journal)
    left = [folder.name.split("-")[1] for folder in (tmp_path / "weights").iterdir()]
    assert left == ["3"], "former versions are gone"


@pytest.mark.long
def test_weights_that_are_not_read_are_seen_in_the_gap(config, model_directory, tmp_path, capsys):
    config.optimizer.learning_rate = 0.1
    with engine(model_directory, "--tokens", "--deaf") as (address, _):
        config.sampling.endpoint.base_url = address
        finetune(typed(config), tmp_path / "run")
    first, *later = gaps(tmp_path / "run")
    assert first < 1e-4 and min(later) > LARGE_GAP
    # The reference of a pair is what this step's policy reads, whatever the server says.
    for values in metrics_of(tmp_path / "run").values():
        assert values["pair_rate"] > 0
        expected = np.log(2) * values["pair_rate"]
        assert values["alignment_loss"] == pytest.approx(expected, abs=1e-3)
    said = [
        line for line in capsys.readouterr().err.splitlines() if "nats a token from ours" in line
    ]
    assert len(said) == 1 and said[0].startswith("step 1:"), said


@pytest.mark.long
def test_versions_come_every_so_many_steps(config, model_directory, tmp_path, monkeypatch):
    loaded = []
    load = RolloutServer.load
    monkeypatch.setattr(
        RolloutServer, "load", lambda self, *told: (loaded.append(told[0]), load(self, *told))
    )
    config.sampling.endpoint.every = 3
    with engine(model_directory, "--tokens") as (address, _):
        config.sampling.endpoint.base_url = address
        finetune(typed(config), tmp_path / "run")
    assert [name.split("-")[1] for name in loaded] == ["0", "3"]
    steps = metrics_of(tmp_path / "run")
    assert [values["engine/steps_behind"] for values in steps.values()] == [0, 1, 2, 0]
    assert gaps(tmp_path / "run")[2] > gaps(tmp_path / "run")[0]


@pytest.mark.long
def test_whole_weights_take_the_base_s_place(config, model_directory, tmp_path):
    config.lora.rank, config.sampling.endpoint.load = 0, "sglang"
    config.conscience.chain = ("self", "fresh")
    with engine(model_directory, "--sglang", "--tokens") as (address, _):
        config.sampling.endpoint.base_url = address
        finetune(typed(config), tmp_path / "run")
    assert max(gaps(tmp_path / "run")) < 1e-4


@pytest.mark.long
def test_a_server_that_dies_ends_the_run_in_one_line_and_the_run_goes_on(
    config, model_directory, tmp_path, monkeypatch
):
    from emergent_alignment.runs import rollouts

    config.training.checkpoint_every = 1
    with engine(model_directory, "--tokens") as (address, process):
        config.sampling.endpoint.base_url = address
        answers = rollouts.Rollouts.answers

        def dying(self, step, *rest):
            if step == 2:
                process.kill()
                process.wait()
            return answers(self, step, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(rollouts.Rollouts, "answers", dying)
            with pytest.raises(Unreachable, match="config.sampling.endpoint: http.*is it running"):
                finetune(typed(config), tmp_path / "run")
    assert list(metrics_of(tmp_path / "run")) == [0, 1]
    with engine(model_directory, "--tokens") as (address, _):  # elsewhere, and it knows no version
        config.sampling.endpoint.base_url = address
        finetune(typed(config), tmp_path / "run")
    assert list(metrics_of(tmp_path / "run")) == [0, 1, 2, 3]
    assert max(gaps(tmp_path / "run")) < 1e-4


@pytest.mark.long
def test_fresh_answers_are_the_base_s(config, model_directory, tmp_path, monkeypatch):
    config.conscience.chain, config.loss.reference = ("fresh",), "frozen"
    asked = []
    ask = Endpoint.continuation
    monkeypatch.setattr(
        Endpoint,
        "continuation",
        lambda self, prompt, **told: (asked.append(self.model), ask(self, prompt, **told))[1],
    )
    with engine(model_directory, "--tokens") as (address, _):
        config.sampling.endpoint.base_url = address
        finetune(typed(config), tmp_path / "run")
    assert asked.count("base") == 16, "every candidate was corrected once"
    assert len(asked) == 32
    journal = read_journal(tmp_path / "run" / "journal")
    assert any(record["outcome"] == "revised_fresh" for record in journal)


MISTAKES = {
    "no address": ({"sampling.endpoint.base_url": ""}, "endpoint.base_url: .*needs the server's"),
    "no folder": ({"sampling.endpoint.weights": ""}, "endpoint.weights: .*needs a folder"),
    "a folder that is none": (
        {"sampling.endpoint.weights": "/no/such"}, "'/no/such' is no folder; make one"
    ),
    "down": ({}, "config.sampling.endpoint: http://127.0.0.1:9/v1.*no connection.*is it running"),
    "forks": ({"conscience.chain": ("fork",)}, "chain: fork go on within an answer.*set best"),
    "whole weights at vLLM": ({"lora.rank": 0}, "load: vllm is told of adapters alone"),
    "targets": ({"conscience.candidate": "target", "conscience.chain": ("fresh",)}, "own"),
    "raw text": ({"application": "pretraining"}, "endpoint is for fine-tuning, not for pretrai"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_work_is_said_before_the_run(config, tmp_path, name):
    changes, told = MISTAKES[name]
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=told) as raised:
        finetune(typed(config), tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_server_with_another_model_or_without_adapters_is_said(config, model_directory, tmp_path):
    with engine(model_directory) as (address, _):
        config.sampling.endpoint.update({"base_url": address, "model": "other"})
        with pytest.raises(UserError, match="does not serve 'other'; it serves base"):
            finetune(typed(config), tmp_path / "one")
        assert not (tmp_path / "one").exists()
        config.sampling.endpoint.update({"model": "base", "load": "sglang"})
        with pytest.raises(UserError, match="asked for loading .*HTTP 404.*enable-lora"):
            finetune(typed(config), tmp_path / "two")
    assert not (tmp_path / "two" / "metrics.jsonl").read_text()


def test_the_gap_is_of_tokens_where_both_have_as_many_and_else_of_the_whole():
    ours = np.array([-1.0, -2.0, -3.0], np.float32)
    assert log_prob_gap((-1.5, -1.5, -3.0), ours) == pytest.approx(1 / 3)
    assert log_prob_gap((-1.0, -2.5), ours) == pytest.approx(0.25), "without its end token"
    assert log_prob_gap((-1.0, -2.0, -1.0, -5.0), ours) == pytest.approx(1.0)
    assert log_prob_gap((), ours[:0]) == 0.0
