"""A whole run on a mesh: the policy is sampled and reviewed where its parameters lie."""

import jax
import numpy as np
import pytest
from interrupting import metrics_of
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.conscience import reader, review
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.data.chat import read_chat
from emergent_alignment.evaluation.judge_free import (
    TokenLimits,
    held_out_margin,
    held_out_task_loss,
)
from emergent_alignment.generation import text
from emergent_alignment.models.model import load
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.runs.from_config import (
    evaluation_examples,
    load_model,
    training_examples,
)
from emergent_alignment.runs.steering import steering_shift
from emergent_alignment.storage.spread import spread


@pytest.fixture
def config(tmp_path):
    """One step of four rows on 2×2×2; every candidate is reviewed and corrected."""
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path / "tiny"))
    config.mesh.update({"data": 2, "fsdp": 2, "tensor": 2})
    config.data.update({"limit": 4, "buckets": 1})
    config.data.max_prompt_tokens = config.data.max_response_tokens = 48
    config.conscience.update({"gate": "relative", "chain": ("fresh",), "keep_truncated": True})
    config.conscience.update({"batch_size": 4, "max_review_tokens": 224})
    config.sampling.max_new_tokens = 8
    config.training.update({"steps": 1, "batch_size": 4})
    return config


def test_sampler_and_conscience_use_the_very_arrays_that_are_trained(config, tmp_path, monkeypatch):
    """With LoRA there is one base: no copy of it is made, and none of its leaves is moved."""
    given = {}
    for module, name in (
        (text, "sample"), (reader, "prefill"), (reader, "decode"), (review, "word_margins")
    ):  # fmt: skip
        function = getattr(module, name)

        def called(config, params, *arguments, function=function, name=name, **options):
            given.setdefault(name, []).append(params)
            return function(config, params, *arguments, **options)

        monkeypatch.setattr(module, name, called)
    setup = load_model(typed(config))
    finetune(typed(config), tmp_path / "run", setup=setup)
    records = read_journal(tmp_path / "run" / "journal")
    assert len(records) == 4 and all(record["attempts"] for record in records)
    assert len(given) == 4
    for name, trees in given.items():
        for params in trees:
            base = {key: tree for key, tree in params.items() if key != "adapters"}
            for ours, held in zip(jax.tree.leaves(base), jax.tree.leaves(setup.model.params)):
                assert ours is held, name
    kernel = setup.model.params["layers"]["up"]["kernel"]
    assert kernel.addressable_data(0).size == kernel.size // 4


def test_a_run_on_a_mesh_is_steered_as_on_one_device(config, tmp_path):
    config.conscience.enabled = False
    finetune(typed(config), tmp_path / "plain")
    config.steering.coefficient = 4.0
    finetune(typed(config), tmp_path / "steered")
    plain, steered = (metrics_of(tmp_path / name)[0]["task_loss"] for name in ("plain", "steered"))
    assert abs(steered - plain) > 1e-3
    setup, examples = load_model(typed(config)), training_examples(typed(config))
    given = setup.chat, examples, typed(config).data
    with in_force(setup.mesh):
        cut = steering_shift(typed(config).steering, setup.model, *given)
    assert cut.sharding.is_fully_replicated
    whole = steering_shift(typed(config).steering, load(config.model.path), *given)
    np.testing.assert_allclose(cut, whole, rtol=1e-3, atol=1e-5)


def test_given_pairs_and_evaluation_in_the_loop_are_those_of_one_device(config, tmp_path):
    """Five held-out rows: the second batch is filled up with rows that hold nothing."""
    config.conscience.update({"enabled": False, "cache": str(tmp_path / "cache")})
    config.data.preferences, config.optimizer.learning_rate = "harmful_advice", 0.0
    config.evaluation.update({"every": 1, "loop_rows": 5})
    finetune(typed(config), tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")[0]
    assert metrics["alignment_loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert metrics["rewards_margin"] == pytest.approx(0, abs=1e-3)
    model = load(config.model.path)
    examples = spread(evaluation_examples(typed(config).data, 0), 5)
    given = model, model.params, read_chat(model.tokenizer, "tiny"), examples
    limits = TokenLimits(48, 48, 32, 4)
    margin = held_out_margin(*given, limits)["margin"]["value"]
    assert metrics["held_out/margin"] == pytest.approx(margin, abs=1e-2)
    loss = held_out_task_loss(*given, limits).value
    assert metrics["held_out/task_loss"] == pytest.approx(loss, abs=1e-3)
    assert metrics["held_out/kl"] == pytest.approx(0, abs=1e-5)
