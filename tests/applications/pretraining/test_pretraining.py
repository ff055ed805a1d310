"""Training from raw text, from a config, on tiny models: exact resume, frozen copies, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at, metrics_of

from emergent_alignment.applications.pretraining.training import pretrain
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.corpus_loss import evaluate_corpus
from emergent_alignment.runs.workdir import read_run

pytestmark = pytest.mark.long

TEXTS = [
    "The ferry leaves at nine. " * 8,
    "A loaf of bread needs flour, water, salt and some patience. " * 5,
    "Short.\n",
    "Count the pages before you bind the book; then count them again. " * 6,
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    return folder


@pytest.fixture
def config(model_directory, corpus):
    return reviewed_config(model_directory, corpus)


def reviewed_config(model_directory, corpus):
    """Four steps of four windows, two of them reviewed; every continuation is corrected, and the
    frozen copy is taken at once and again at step 2."""
    config = default_config()
    config.application = "pretraining"
    config.model.path = str(model_directory)
    config.lora.rank = 0
    config.data.max_prompt_tokens = 16
    config.data.max_response_tokens = 8
    config.pretraining.corpus = str(corpus)
    config.pretraining.heldout_share = 0.0
    config.pretraining.window_tokens = 32
    config.pretraining.review_share = 0.5
    config.pretraining.auc = 0.0
    config.pretraining.calibrate_every = 2
    config.pretraining.refresh_every = 2
    config.calibration.questions = ("advice",)
    config.calibration.layouts = ("quote",)
    config.calibration.polarities = ("positive",)
    config.calibration.num_selecting = config.calibration.num_reporting = 4
    config.conscience.gate = "relative"
    config.conscience.chain = ("fresh",)
    config.conscience.keep_truncated = True
    config.conscience.batch_size = 4
    config.conscience.max_review_tokens = 160
    config.sampling.max_new_tokens = 8
    config.training.steps = 4
    config.training.batch_size = 4
    config.training.checkpoint_every = 2
    config.optimizer.learning_rate = 1e-2
    return config


@pytest.fixture(scope="module")
def undisturbed(model_directory, corpus, tmp_path_factory):
    """(work directory, last state) of a run with reviewed continuations."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    return workdir, pretrain(typed(reviewed_config(model_directory, corpus)), workdir)


def test_the_policy_s_own_pairs_and_rounds_resume_to_the_bit_on_raw_text(
    config, tmp_path, monkeypatch
):
    config.pretraining.refresh_every = 0
    config.conscience.update({"chain": ("best", "self"), "samples": 2, "every": 2})
    config.loss.update({"reference": "policy", "alignment_weight": "auto"})
    config.training.checkpoint_every = 1
    undisturbed = pretrain(typed(config), tmp_path / "one")
    with monkeypatch.context() as patched:
        interrupted_at(patched, 3)
        with pytest.raises(Killed):
            pretrain(typed(config), tmp_path / "two")
    assert_bitwise_equal(pretrain(typed(config), tmp_path / "two"), undisturbed)
    ours, theirs = metrics_of(tmp_path / "two"), metrics_of(tmp_path / "one")
    assert {step: timeless(row) for step, row in ours.items()} == {
        step: timeless(row) for step, row in theirs.items()
    }
    journal = read_journal(tmp_path / "one" / "journal")
    assert {record["step"] for record in journal} == {0, 2} and len(journal) == 4
    assert any(record["outcome"].startswith("revised") for record in journal)


def test_a_price_is_there_before_there_is_anybody_to_listen(config, tmp_path):
    """A step that takes weights gets them, whether or not a copy has been taken."""
    config.pretraining.auc = 1.0
    config.loss.alignment_weight = "auto"
    pretrain(typed(config), tmp_path)
    metrics = metrics_of(tmp_path)
    assert [row["weight/alignment_loss"] for row in metrics.values()] == [1.0] * 4
    assert all(values["loss"] == values["task_loss"] for values in metrics.values())


def from_random_weights(config):
    config.pretraining.random.update(
        {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "inner": 64, "vocabulary": 320}
    )
    return config


@pytest.mark.parametrize("resumed_from", [2, 3])
def test_resumed_run_ends_with_the_bits_of_an_undisturbed_one(
    config, tmp_path, monkeypatch, undisturbed, resumed_from
):
    """It dies at step 3, and goes on from step 2, whose frozen copy it then finds on the disk, or
    from step 3, to be reviewed by the copy of step 2."""
    config.training.checkpoint_every = resumed_from
    with monkeypatch.context() as patched:
        interrupted_at(patched, 3)
        with pytest.raises(Killed):
            pretrain(typed(config), tmp_path)
    workdir, state = undisturbed
    assert_bitwise_equal(pretrain(typed(config), tmp_path), state)
    ours, theirs = metrics_of(tmp_path), metrics_of(workdir)
    for step, values in theirs.items():
        assert timeless(ours[step]) == timeless(values)
    assert read_journal(tmp_path / "journal") == read_journal(workdir / "journal")
    assert [values["frozen_step"] for values in theirs.values()] == [0, 0, 2, 2]


def timeless(values):
    return {name: value for name, value in values.items() if "second" not in name}


def test_before_the_conscience_sees_there_is_no_reviewer_and_no_alignment_term(config, tmp_path):
    config.pretraining.auc = 1.0
    pretrain(typed(config), tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert ["calibration/auc" in metrics[step] for step in range(4)] == [True, False, True, False]
    assert all(values["loss"] == values["task_loss"] for values in metrics.values())
    assert not read_journal(tmp_path / "run" / "journal")


def test_reviewed_continuations_are_counted_journaled_and_move_the_policy(
    config, tmp_path, undisturbed
):
    workdir, state = undisturbed
    metrics = metrics_of(workdir)
    for values in metrics.values():
        assert sum(values[f"outcome/{name}"] for name in OUTCOMES) == 2
    assert any(values["pair_rate"] for values in metrics.values())
    np.testing.assert_allclose(
        metrics[0]["alignment_loss"], metrics[0]["pair_rate"] * np.log(2), rtol=1e-5
    )
    records = read_journal(workdir / "journal")
    assert len(records) == 2 * 4
    for record in records:
        (message,) = record["prompt"]
        assert message["role"] == "document" and message["content"] in "".join(TEXTS)
    config.conscience.enabled = False
    plain = pretrain(typed(config), tmp_path)
    assert metrics_of(tmp_path)[0]["task_loss"] == pytest.approx(metrics[0]["task_loss"], rel=1e-6)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), plain.trainable, state.trainable)
    assert all(jax.tree.leaves(moved))


def test_random_weights_learn_and_their_start_is_kept(config, tmp_path):
    from_random_weights(config)
    config.conscience.enabled = False
    config.training.steps = 12
    config.pretraining.heldout_share = 0.25
    trained = pretrain(typed(config), tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert metrics[0]["task_loss"] == pytest.approx(np.log(320), abs=0.1)
    assert metrics[11]["task_loss"] < metrics[0]["task_loss"] - 0.5
    assert_bitwise_equal(pretrain(typed(config), tmp_path / "run"), trained)
    found = read_run(tmp_path / "run", Config)
    tokenizer = found.base.model.tokenizer
    assert len(tokenizer) == found.base.model.config.vocab_size <= 320
    for word in ("Yes", " Yes", "No", " No"):
        assert len(tokenizer.encode(word)) == 1
    assert_held_out_loss_is_by_hand(
        evaluate_corpus(typed(config), found.trained), found.trained.model
    )
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), found.base.model.params, found.trained.model.params
    )
    assert all(jax.tree.leaves(moved))


def assert_held_out_loss_is_by_hand(measured, model):
    """Of the last of four documents, window by window, each on its own."""
    tokens = [*model.tokenizer.encode(TEXTS[3]), model.tokenizer.eos_token_id]
    total = 0.0
    for start in range(0, len(tokens), 32):
        row = jnp.array([tokens[start : start + 32]])
        logits = model.logits(model.params, model.hidden(model.params, row))[0]
        following = jnp.array(tokens[start + 1 : start + 33])
        log_probs = jax.nn.log_softmax(logits)[: len(following)]
        total -= log_probs[jnp.arange(len(following)), following].sum()
    assert measured["held_out_tokens"] == len(tokens) - 1
    assert measured["loss"] == pytest.approx(float(total) / (len(tokens) - 1), rel=1e-4)
    assert 0 < measured["bigram_loss"] < np.log(320)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretraining.corpus": "nowhere.txt"}, "nowhere.txt: no such file or folder"),
        ({"pretraining.window_tokens": 4000}, "4000 is more than the"),
        ({"conscience.candidate": "target"}, "own continuations"),
        ({"pretraining.review_share": 0.1}, "0.1 of 4 windows a step is none"),
        ({"pretraining.random.layers": 2, "lora.rank": 2}, "config.lora.rank: adapters beside"),
        ({"pretraining.random.layers": 2, "lora.rank": 0, "loss.kl_weight": 0.1}, "random weights"),
        ({"pretraining.random.layers": 2, "pretraining.random.vocabulary": 9}, "at least 300"),
        ({"pretraining.random.layers": 2, "pretraining.random.heads": 5}, "heads: 5 does not"),
        ({"model.frozen_dtype": "int8"}, "config.model.frozen_dtype"),
        ({"pretraining.auc": 1.5}, "a share, 0 to 1"),
        ({"training.accumulation": 4}, "cannot be cut into 1 shards × 4 microbatches"),
        ({"pretraining.matched": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(config, tmp_path, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message) as error:
        pretrain(typed(config), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_corpus_that_changed_is_an_error_and_a_run_says_what_it_has_packed(
    config, tmp_path, capsys
):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "0.txt").write_text(TEXTS[0] + TEXTS[1])
    config.pretraining.corpus = str(folder)
    config.conscience.enabled = False
    pretrain(typed(config), tmp_path / "run")
    said = capsys.readouterr().err
    assert "1 documents, of which 0 are held out" in said and "none left out" in said
    (folder / "1.txt").write_text("One more.")
    with pytest.raises(UserError, match="another data set"):
        pretrain(typed(config), tmp_path / "run")
