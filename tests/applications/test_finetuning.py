"""Fine-tuning from a config, on a tiny chat model: outcomes, identity, exact resume."""

import signal
from pathlib import Path

import jax
import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at, metrics_of
from tiny_chat_model import write_tiny_chat_model
from tiny_runs import tiny_run_config

from emergent_alignment.applications import finetuning
from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.conscience.pairs import review_and_revise
from emergent_alignment.data.batches import make_batch
from emergent_alignment.errors import Stopped, UserError
from emergent_alignment.runs import listening, reviewed_targets, step_inputs
from emergent_alignment.runs.workdir import read_run


@pytest.fixture
def config(model_directory, tmp_path_factory):
    config = tiny_run_config(model_directory)
    config.conscience.cache = str(tmp_path_factory.mktemp("reviewed"))
    return config


@pytest.mark.parametrize("candidate", ["policy", "target"])
def test_resumed_run_ends_with_the_bits_of_an_undisturbed_one(
    config, tmp_path, monkeypatch, candidate
):
    config.conscience.candidate = candidate
    undisturbed = finetune(typed(config), tmp_path / "one")
    for cached in Path(config.conscience.cache).iterdir():
        cached.write_text("".join(cached.read_text().splitlines(keepends=True)[:5]) + '{"ro')
    with monkeypatch.context() as patched:
        interrupted_at(patched, 3)
        with pytest.raises(Killed):
            finetune(typed(config), tmp_path / "two")
    resumed = finetune(typed(config), tmp_path / "two")
    assert_bitwise_equal(resumed, undisturbed)
    ours, theirs = metrics_of(tmp_path / "two"), metrics_of(tmp_path / "one")
    for step, values in theirs.items():
        timeless = {k: v for k, v in values.items() if "second" not in k}
        assert {k: v for k, v in ours[step].items() if "second" not in k} == timeless
    assert read_journal(tmp_path / "two" / "journal") == read_journal(tmp_path / "one" / "journal")


def test_what_is_frozen_is_computed_once_for_all_runs_on_the_same_data(
    config, tmp_path, monkeypatch
):
    config.conscience.candidate = "target"
    calls = []

    def counted(reader, settings, prompts, *rest, **options):
        calls.append(len(prompts))
        return review_and_revise(reader, settings, prompts, *rest, **options)

    monkeypatch.setattr(reviewed_targets, "review_and_revise", counted)
    first = finetune(typed(config), tmp_path / "first")
    assert sum(calls) == 10, "each row once, though four steps see sixteen"
    calls.clear()
    again = finetune(typed(config), tmp_path / "again")
    assert not calls, "another run reads what the first one wrote"
    assert_bitwise_equal(first, again)
    journals = [read_journal(tmp_path / name / "journal") for name in ("first", "again")]
    assert journals[0] == journals[1] and len(journals[0]) == 10
    config.optimizer.learning_rate = 2e-2
    finetune(typed(config), tmp_path / "faster")
    assert not calls, "the optimizer has no say in it"
    config.conscience.question = "ethical"
    finetune(typed(config), tmp_path / "asked")
    assert sum(calls) == 10, "another question is another review"


@pytest.mark.parametrize("candidate", ["policy", "target"])
def test_every_candidate_has_one_outcome_in_metrics_and_journal(
    config, tmp_path, candidate, monkeypatch
):
    config.conscience.candidate = candidate
    batches = []

    def kept(*rows, **options):
        batches.append(make_batch(*rows, **options))
        return batches[-1]

    monkeypatch.setattr(step_inputs, "make_batch", kept)
    finetune(typed(config), tmp_path)
    assert any(batch.pair_mask.any() for batch in batches)
    for batch in batches:
        # What the frozen copy read comes with the pair, and the step reads nothing frozen.
        assert ((batch.reference < 0).all(-1) == batch.pair_mask).all()
    metrics = metrics_of(tmp_path)
    for values in metrics.values():
        assert sum(values[f"outcome/{name}"] for name in OUTCOMES) == config.training.batch_size
        assert values["seconds_share/review"] > 0
    records = read_journal(tmp_path / "journal")
    assert all(record["outcome"] in OUTCOMES for record in records)
    if candidate == "policy":
        assert len(records) == config.training.steps * config.training.batch_size
        for step, values in metrics.items():
            outcomes = [r["outcome"] for r in records if r["step"] == step]
            assert {o: outcomes.count(o) for o in OUTCOMES} == {
                o: values[f"outcome/{o}"] for o in OUTCOMES
            }


def test_the_two_kinds_of_run_log_what_people_look_at(config, tmp_path):
    config.training.steps, config.training.checkpoint_every = 2, 1
    finetune(typed(config), tmp_path / "conscience")
    logged = metrics_of(tmp_path / "conscience")[1]
    expected = (
        "task_loss alignment_loss rewards_chosen rewards_rejected rewards_margin "
        "rewards_accuracy log_probs_chosen log_probs_rejected kl flag_rate pair_rate "
        "tokens_per_second model_flops_per_second padding_share length/target length/chosen "
        "length/rejected gradient_norm nonfinite"
    )
    assert set(expected.split()) <= logged.keys()
    assert logged["model_flops_per_second"] > 0
    for part in ("step", "data", "sampling", "review", "checkpoint", "compile", "other"):
        assert logged[f"seconds_share/{part}"] > 0, part
    assert list((tmp_path / "conscience" / "tensorboard").iterdir())
    shares = [share for name, share in logged.items() if name.startswith("seconds_share/")]
    assert sum(shares) == pytest.approx(1) and min(shares) >= 0


def test_the_steps_asked_for_are_profiled(config, tmp_path):
    config.conscience.enabled = False
    finetune(typed(config), tmp_path, profiled=range(1, 3))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_run_that_is_done_trains_no_further(config, tmp_path):
    config.conscience.enabled = False
    first = finetune(typed(config), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    again = finetune(typed(config), tmp_path)
    assert_bitwise_equal(first, again)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_another_run_s_directory_is_an_error_that_names_the_field(config, tmp_path):
    config.conscience.enabled = False
    config.training.steps = 1
    finetune(typed(config), tmp_path)
    config.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r"optimizer\.learning_rate \(0\.01, now 0\.5\)"):
        finetune(typed(config), tmp_path)


def test_a_checkpoint_of_another_frozen_model_is_an_error(config, tmp_path):
    config.conscience.enabled = False
    config.training.steps = 1
    path = tmp_path / "model"
    write_tiny_chat_model(path)
    config.model.path = str(path)
    finetune(typed(config), tmp_path / "run")
    path.rename(tmp_path / "former")
    write_tiny_chat_model(path, seed=1)
    with pytest.raises(UserError, match="another frozen model"):
        finetune(typed(config), tmp_path / "run")
    with pytest.raises(UserError, match="another frozen model"):
        read_run(tmp_path / "run", Config)


def test_sigterm_saves_the_step_at_hand(config, tmp_path, monkeypatch):
    config.conscience.enabled = False
    config.training.checkpoint_every = 100
    undisturbed = finetune(typed(config), tmp_path / "one")
    make = finetuning.plain_inputs

    def asked_at_step_one(*arguments):
        make_input = make(*arguments)

        def inner(step, trainable):
            if step == 1:
                signal.raise_signal(signal.SIGTERM)
            return make_input(step, trainable)

        return inner

    with monkeypatch.context() as patched:
        patched.setattr(finetuning, "plain_inputs", asked_at_step_one)
        with pytest.raises(Stopped, match="saved after step 2 of 4"):
            finetune(typed(config), tmp_path / "two")
    assert_bitwise_equal(finetune(typed(config), tmp_path / "two"), undisturbed)


def test_asked_to_stop_between_sampling_and_review_it_saves_what_was_trained(
    config, tmp_path, monkeypatch
):
    """… and the step that it left is done again, to the bit."""
    config.training.steps = 2
    undisturbed = finetune(typed(config), tmp_path / "one")
    sample = listening.StepPolicy.answers

    def asked_at_step_one(policy):
        answers = sample(policy)
        if policy.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return answers

    with monkeypatch.context() as patched:
        patched.setattr(listening.StepPolicy, "answers", asked_at_step_one)
        with pytest.raises(Stopped, match="saved after step 1"):
            finetune(typed(config), tmp_path / "two")
    assert {record["step"] for record in read_journal(tmp_path / "two" / "journal")} == {0}
    assert_bitwise_equal(finetune(typed(config), tmp_path / "two"), undisturbed)


def test_steps_that_are_not_finite_stop_the_run_and_keep_the_state(config, tmp_path):
    config.conscience.enabled = False
    config.optimizer.learning_rate = 1e38
    config.training.max_nonfinite = 2
    with pytest.raises(UserError, match="not finite for 2 steps in a row"):
        finetune(typed(config), tmp_path)
    kept = read_run(tmp_path, Config)
    assert kept.steps == 3


def test_full_fine_tuning_leaves_the_frozen_copy_as_it_was(config, tmp_path):
    config.lora.rank = 0
    config.training.steps = 2
    finetune(typed(config), tmp_path)
    found = read_run(tmp_path, Config)
    moved = [
        bool((a != b).any())
        for a, b in zip(
            jax.tree.leaves(found.base.model.params), jax.tree.leaves(found.trained.model.params)
        )
    ]
    assert all(moved)
