"""Stage 4 as the pipeline calls it: both forms, both rewards, resumed after a kill; and mistakes
that are said before any work."""

import json
from dataclasses import replace

import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at, metrics_of
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.errors import UserError
from emergent_alignment.runs.from_config import load_model
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.self_align.reinforcement import principle_preferences, stage, verbose
from emergent_alignment.self_align.stages import StageRun, stage_folder

pytestmark = pytest.mark.long

INSTRUCTIONS = [f"Say {word} twice" for word in "boat tree house river cloud stone".split()]


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path_factory.mktemp("model")))
    return load_model(typed(config))


def small_config(**fields):
    config = default_config()
    config.data.update({"max_prompt_tokens": 96, "max_response_tokens": 16, "buckets": 1})
    config.training.checkpoint_every = 1
    wanted = config.self_align.reinforcement
    wanted.preferences.update({"max_new_tokens": 8, "principles": 2, "batch_size": 2})
    wanted.preferences.orders = "average"
    wanted.reward_model.update({"batch_size": 2, "held_out_share": 0.4})
    wanted.policy.update({"rollouts": 2, "prompts_per_rollout": 2, "samples": 2, "epochs": 1})
    wanted.policy.update({"max_new_tokens": 8, "lora_rank": 4})
    wanted.shaping.guards = ""
    wanted.update(fields)
    return config


@pytest.fixture
def stage_run(setup, tmp_path, monkeypatch):
    """stage_run(config, name): a StageRun whose engraved model is the base itself."""
    monkeypatch.setattr(stage, "engraved", lambda folder, base: base)

    def build(config, name="work"):
        folders = {number: stage_folder(tmp_path / name, number) for number in (1, 2, 3, 4)}
        for folder in folders.values():
            folder.path.mkdir(parents=True, exist_ok=True)
        folders[1].write_rows({"instruction": text, "kind": "seed"} for text in INSTRUCTIONS)
        return StageRun(typed(config), folders[4], {n: folders[n] for n in (1, 2, 3)}, setup)

    return build


def test_by_principle_and_reward_model_it_ends_as_if_it_had_not_been_killed(
    stage_run, setup, monkeypatch
):
    config = small_config()
    stage.check(typed(config))
    whole, cut = stage_run(config, "whole"), stage_run(config, "cut")
    result = stage.run(whole)
    counts = result.counts
    assert counts["made"] == 6 == counts["kept"] + sum(counts["dropped"].values())
    assert {"first_reward", "last_reward", "last_kl", "first_value_loss"} <= counts.keys()
    assert counts["reward_model"]["held_out"] + counts["reward_model"]["pairs"] == counts["kept"]
    rows = whole.folder.rows()
    assert len(rows) == counts["kept"] and all(row["guidelines"] for row in rows)

    compare = principle_preferences.compare
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(principle_preferences, "ROUND_BATCHES", 1)
        seen = []

        def dying(*arguments, **options):
            if seen:
                raise Killed
            seen.append(1)
            return compare(*arguments, **options)

        patched.setattr(principle_preferences, "compare", dying)
        stage.run(cut)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupted_at(patched, 1)  # of the reward model's run
        stage.run(cut)
    again = stage.run(cut)
    assert cut.folder.data.read_text() == whole.folder.data.read_text()
    assert again.counts == counts and again.examples == result.examples
    trained = [read_run(one.folder.run, Config, base=setup).trained.model for one in (whole, cut)]
    assert_bitwise_equal(trained[0].adapters, trained[1].adapters)


def test_principles_as_reward_and_peoples_preferences(stage_run, tmp_path):
    config = small_config(algorithm="grpo", reward="principles")
    work = stage_run(config)
    result = stage.run(work)
    logged = metrics_of(work.folder.run)[0]
    # What one answer is preferred by, the other one is not.
    assert abs(logged["reward/score"]) < 1e-5 and logged["rollout/distinct_groups"] > 0
    wanted = {
        "reward/truncation", "reward/repetition", "rollout/reward", "rollout/length",
        "rollout/ended", "kl", "entropy", "clip_share",
    }  # fmt: skip
    assert wanted <= logged.keys()
    assert {example["when"] for example in result.examples} == {"first rollout", "last rollout"}
    assert not work.folder.data.exists()

    pairs = tmp_path / "people.jsonl"
    rows = [{"prompt": f"{i}?", "chosen": "boat boat", "rejected": f"no {i}"} for i in range(12)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = small_config(algorithm="grpo")
    config.self_align.reinforcement.preferences.source = str(pairs)
    stage.check(typed(config))
    counts = stage.run(stage_run(config, "people")).counts
    assert counts["made"] == counts["kept"] == 12 and "guidelines" not in counts


def test_verbose_cloning_trains_the_base_on_what_the_persona_wrote_and_hides_it(
    stage_run, setup, monkeypatch
):
    config = small_config(form="verbose")
    config.self_align.reinforcement.verbose.min_words = 4
    config.self_align.engraving.update({"steps": 2, "batch_size": 2})
    persona = verbose.read_persona("bundled")
    said = ["Pour the water slowly into it.", "Too short.", persona, "Count the boats at dawn."]
    said += ["so so so so so so so so so so", "One more of them, please, and then rest."]
    asked = []

    def sampled(stage, prompts, purpose):
        asked.extend(setup.chat.tokenizer.decode(prompt) for prompt in prompts)
        assert stage.config.self_align.answers.max_new_tokens == 384
        return [{"place": i, "text": t, "ended": True} for i, t in enumerate(said)]

    monkeypatch.setattr(verbose, "sampled_answers", sampled)
    work = stage_run(config)
    stage.check(typed(config))
    result = stage.run(work)
    assert all(persona in text for text in asked)
    assert result.counts["dropped"] == {"short": 1, "repeats": 1, "leak": 1}
    rows = work.folder.rows()
    assert [row["response"] for row in rows] == [said[0], said[3], said[5]]
    assert persona not in work.folder.data.read_text()
    assert read_run(work.folder.run, Config, base=setup).steps == 2
    monkeypatch.setattr(verbose, "sampled_answers", lambda *_: [
        {"place": i, "text": "no", "ended": False} for i in range(6)
    ])  # fmt: skip
    with pytest.raises(UserError, match="no thorough answer is left, of 6: unended 6"):
        stage.run(stage_run(config, "nothing"))


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"form": "both"}, "form: 'both' is unknown; known: rlhf, verbose"),
        ({"algorithm": "sarsa"}, "algorithm: 'sarsa' is unknown"),
        ({"policy.samples": 1, "algorithm": "grpo"}, "grpo compares the answers to a prompt"),
        ({"policy.samples": 1, "reward": "principles"}, "the reward by principles compares"),
        ({"policy.minibatches": 3}, "3 does not divide prompts_per_rollout 2"),
        ({"reward_model.held_out_share": 0.0}, "held_out_share must be more than 0 and under 1"),
        ({"policy.decay": 1.5}, r"policy.decay must be in \[0, 1\], not 1.5"),
        ({"preferences.source": "none.jsonl"}, "none.jsonl: no such file"),
        ({"prompts": "none.txt"}, "none.txt: no such file"),
        ({"shaping.guards": "none.yaml"}, "none.yaml: no such file"),
        ({"principles": "none.yaml"}, "none.yaml: no such file"),
        ({"form": "verbose", "verbose.persona": "none.txt"}, "none.txt cannot be read"),
    ],
)
def test_mistakes_are_said_before_any_work(fields, said):
    config = small_config()
    for name, value in fields.items():
        section, _, field = name.rpartition(".")
        at = config.self_align.reinforcement
        (at[section] if section else at)[field] = value
    with pytest.raises(UserError, match=said) as error:
        stage.check(typed(config))
    assert "\n" not in str(error.value)


def test_files_that_changed_since_the_kill_are_not_mixed(stage_run, monkeypatch):
    config = small_config()
    work = stage_run(config)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupted_at(patched, 0)
        stage.run(work)
    other = replace(work, config=typed(small_config(prompt_limit=5)))
    with pytest.raises(UserError, match="of other prompts or principles"):
        stage.run(other)
