"""Stage 3 on a tiny chat model: what is learnt, resumed to the same bits, and merged."""

import jax.numpy as jnp
import numpy as np
import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.data.batches import make_batch
from emergent_alignment.errors import UserError
from emergent_alignment.runs import step_inputs
from emergent_alignment.runs.from_config import load_model
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.self_align.engraving import check, engraved, run, training_config
from emergent_alignment.self_align.stages import StageRun, stage_folder
from emergent_alignment.settings import as_dict, changed

ROWS = [
    {
        "prompt": f"What is {i}?",
        "response": f"It is the number {i}, no more",
        "ended": i % 3 > 0,
        "kind": "seed",
        "thoughts": "candor, since that is plain",
        "principles": ["candor"],
    }
    for i in range(9)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Setup of a tiny model with settings for two steps of four rows."""
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny"))
    config.data.buckets = 1
    config.data.max_prompt_tokens = config.data.max_response_tokens = 32
    config.training.checkpoint_every = 1
    config.self_align.engraving.update({"batch_size": 4, "epochs": 0.8, "lora_rank": 2})
    config.self_align.engraving.learning_rate = 1e-2
    return load_model(typed(config))


def engraving(base, **fields):
    """The base's config with other values of config.self_align.engraving."""
    changes = {f"self_align.engraving.{name}": value for name, value in fields.items()}
    return changed(base.config, changes)


@pytest.fixture
def made(base, tmp_path):
    """made(name, **fields of config.self_align.engraving): a StageRun over nine answers."""

    def build(name="run", rows=ROWS, **fields):
        config = engraving(base, **fields)
        folders = {number: stage_folder(tmp_path / name, number) for number in (2, 3)}
        for folder in folders.values():
            folder.path.mkdir(parents=True, exist_ok=True)
        folders[2].write_rows(rows)
        return StageRun(config, folders[3], {2: folders[2]}, base)

    return build


def test_only_instruction_and_answer_are_learnt_and_only_ended_answers_end(made, monkeypatch):
    learnt, chat = [], made().setup.chat

    def kept(prompts, targets, *rest, **options):
        learnt.extend(zip(prompts, targets))
        return make_batch(prompts, targets, *rest, **options)

    monkeypatch.setattr(step_inputs, "make_batch", kept)
    counts = run(made()).counts
    assert counts["steps"] == 2 and counts["kept"] == 9 and counts["ended"] == 6
    by_prompt = {row["prompt"]: row for row in ROWS}
    assert len(learnt) == 8
    for prompt, target in learnt:
        text = chat.tokenizer.decode(prompt)
        (row,) = [row for asked, row in by_prompt.items() if asked in text]
        assert prompt == chat.prompt_tokens([{"role": "user", "content": row["prompt"]}])
        assert chat.decode(target) == row["response"]
        assert (target[-1] == chat.end_token) == row["ended"]
    sizes = [len(chat.response_tokens(row["response"], ended=row["ended"])) for row in ROWS]
    assert counts["answer_tokens"] == sum(sizes)
    assert 0 < counts["last_task_loss"] < 20


@pytest.mark.long
def test_a_killed_engraving_goes_on_to_the_same_bits(made, monkeypatch):
    whole, killed = made("whole"), made("killed")
    counts = run(whole).counts
    with monkeypatch.context() as patched:
        interrupted_at(patched, 1)
        with pytest.raises(Killed):
            run(killed)
    assert run(killed).counts == counts
    models = [engraved(stage.folder, stage.setup).model for stage in (whole, killed)]
    assert_bitwise_equal(models[0].params, models[1].params)
    assert_is_the_trained_policy(models[0], whole)


def assert_is_the_trained_policy(found, stage):
    """Merged: without adapters it says what the run's policy says, and the base does not."""
    base = stage.setup.model
    trained = read_run(stage.folder.run, Config, base=stage.setup).trained.model
    assert found.adapters is None and trained.adapters is not None
    tokens = jnp.array([stage.setup.chat.encode("What is 4? It is")])

    def logits(model):
        return model.logits(model.policy, model.hidden(model.policy, tokens))

    np.testing.assert_allclose(logits(found), logits(trained), rtol=1e-4, atol=1e-4)
    assert np.abs(logits(found) - logits(base)).max() > 1e-2


def test_settings_of_the_stage_change_the_runs_config_and_no_other(base):
    fields = {"epochs": 1.5, "batch_size": 4, "learning_rate": 3e-3, "schedule": "linear"}
    config = engraving(base, **fields)
    of_run = training_config(config, "rows.jsonl", num_rows=10)
    assert of_run.training.steps == 4 and of_run.training.batch_size == 4
    assert of_run.optimizer.learning_rate == 3e-3 and of_run.optimizer.schedule == "linear"
    assert of_run.lora.rank == 2 and not of_run.conscience.enabled
    assert of_run.data.train == "rows.jsonl"
    assert as_dict(config) == {**as_dict(config), "training": as_dict(base.config.training)}
    config = engraving(base, **fields, conscience=True)
    assert training_config(config, "rows.jsonl", num_rows=10).conscience.enabled
    config = engraving(base, **fields, steps=7)
    assert training_config(config, "rows.jsonl", num_rows=10).training.steps == 7
    with pytest.raises(UserError, match="neither epochs nor steps"):
        check(engraving(base, **fields | {"steps": 0, "epochs": 0.0}))
