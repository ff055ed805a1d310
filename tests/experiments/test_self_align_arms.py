"""Before and after each stage: every finished stage's own model is the one that is evaluated."""

import json

import jax
import numpy as np
import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.cli.main import main
from emergent_alignment.config import Config, default_config
from emergent_alignment.errors import UserError
from emergent_alignment.experiments.self_align_arms import config_of, evaluate_stages, stage_models
from emergent_alignment.runs.from_config import load_model
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.self_align.engraving import engraved
from emergent_alignment.self_align.stages import StageResult, stage_folder
from emergent_alignment.settings import changed

pytestmark = pytest.mark.long


def train_stage(workdir, number, config, setup):
    """One step of plain fine-tuning from `setup`, in a stage's folder."""
    folder = stage_folder(workdir, number)
    model = {"path": config.model.path, "dtype": "float32"}
    identity = {"stage": number, "settings": {"model": model, "seed": 3}}
    folder.claim(identity)
    if number > 2:
        seeded = changed(config, {"seed": number})
        finetune(seeded, folder.run, setup=setup, name="test")
    folder.write_rows([{"prompt": "a", "response": "b"}])
    folder.finish(identity, StageResult({"made": 1, "kept": 1}), 1.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A work directory whose stage 3 has started from the base and stage 4 from stage 3."""
    workdir = tmp_path_factory.mktemp("arms") / "aligned"
    config = default_config()
    config.model.path = str(write_tiny_chat_model(workdir.parent / "model"))
    config.conscience.enabled = False
    config.data.update({"limit": 4, "buckets": 1, "max_prompt_tokens": 32})
    config.data.max_response_tokens = 32
    config.training.update({"steps": 1, "batch_size": 2})
    config.optimizer.learning_rate = 0.05
    config.choices.update({"limit": 12, "batch_size": 4})
    config = typed(config)
    base = load_model(config)
    train_stage(workdir, 1, config, base)
    train_stage(workdir, 3, config, base)
    train_stage(workdir, 4, config, engraved(stage_folder(workdir, 3), base))
    return workdir, config, base


def leaves(setup):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(setup.model.params)]


def test_each_stage_is_its_own_model(trained):
    """… stage 4's adapters lie on stage 3's weights, not on the base's."""
    workdir, _, base = trained
    models = dict(stage_models(workdir, base))
    assert list(models) == ["base", "engraving", "reinforcement"]
    third = engraved(stage_folder(workdir, 3), base)
    fourth = read_run(stage_folder(workdir, 4).run, Config, base=third).trained.model.merged()
    for found, expected in (
        ("base", base.model),
        ("engraving", third.model),
        ("reinforcement", fourth),
    ):
        for one, other in zip(leaves(models[found]), jax.tree.leaves(expected.params)):
            np.testing.assert_array_equal(one, other)
    kernels = [leaves(models[name])[-1] for name in models]
    assert len({kernel.tobytes() for kernel in map(np.ascontiguousarray, kernels)}) > 1


def test_an_unfinished_stage_is_left_out(trained, tmp_path, capsys):
    workdir, _, base = trained
    for number in (1, 3):
        (tmp_path / stage_folder(workdir, number).path.name).symlink_to(
            stage_folder(workdir, number).path
        )
    assert [name for name, _ in stage_models(tmp_path, base)] == ["base", "engraving"]
    assert "reinforcement: not finished, left out" in capsys.readouterr().err


def test_a_run_of_another_base_is_an_error(trained, tmp_path):
    workdir, config, _ = trained
    path = str(write_tiny_chat_model(tmp_path / "other", seed=1))
    other = changed(config, {"model.path": path})
    with pytest.raises(UserError, match="neither the base nor an earlier stage's"):
        list(stage_models(workdir, load_model(other)))


def test_the_command_compares_them_in_one_table(trained, capsys):
    workdir, _, _ = trained
    words = ["evaluate", "choices", "--self-align", str(workdir)]
    words += ["--config.choices.limit=12", "--config.choices.batch_size=4"]
    assert main(words) == 0
    said = capsys.readouterr().out
    for part in ("base", "engraving", "reinforcement", "MC1", "minus base's", "self_align.html"):
        assert part in said
    for arm in ("base", "engraving", "reinforcement"):
        result = json.loads((workdir / "evaluation" / arm / "choices/result.json").read_text())
        assert result["arm"] == arm


def test_what_is_scored_is_not_scored_again(trained, monkeypatch):
    workdir, config, base = trained
    first = evaluate_stages(config, workdir, base)
    monkeypatch.setattr("emergent_alignment.evaluation.choices.competing.response_log_probs", None)
    assert evaluate_stages(config, workdir, base) == first


def test_model_and_seed_are_those_of_the_stages(trained, tmp_path):
    workdir, config, _ = trained
    found = config_of(workdir, Config())
    assert (found.model.path, found.seed) == (config.model.path, 3)
    with pytest.raises(UserError, match="no stage has begun"):
        config_of(tmp_path, Config())
