"""Adversarial prompting on a tiny chat model: what its rows learn, its rounds, exact resume."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.applications.adversarial import pool as attack_pool
from emergent_alignment.applications.adversarial import training as adversarial
from emergent_alignment.applications.adversarial.pool import (
    PARAPHRASE,
    PoolSettings,
    Round,
    pool_file,
    pool_of_round,
    round_of,
)
from emergent_alignment.applications.adversarial.prompts import AttackPrompt, load_attacks
from emergent_alignment.applications.adversarial.refusals import is_refusal
from emergent_alignment.applications.adversarial.training import train_against_attacks
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.conscience.pairs import Attempt, Reviewed
from emergent_alignment.errors import UserError
from emergent_alignment.generation.text import Answer
from emergent_alignment.runs import training_run
from emergent_alignment.runs.from_config import load_model
from emergent_alignment.runs.own_answers import answers_file, own_answers
from emergent_alignment.settings import changed
from emergent_alignment.training.terms import HYBRID

pytestmark = pytest.mark.long

STEPS, ROUNDS, BATCH = 6, 3, 8
HOSTILE = BATCH // 2
KINDS = ("role_play", "authority", "fiction")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Four short prompts of each side and kind."""
    path = tmp_path_factory.mktemp("prompts") / "mine.jsonl"
    rows = [
        {"kind": kind, "side": side, "prompt": f"{kind} {side} number {'x' * i} and {i}"}
        for kind in KINDS
        for side in ("hostile", "benign")
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def config(prompts, tmp_path_factory):
    """Six steps in three rounds; every candidate is corrected, so that there are pairs. As many
    rows in each call as in the step, and prompts of one width: few programs are compiled."""
    config = default_config()
    config.application = "adversarial"
    config.model.path = str(write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny"))
    config.adversarial.prompts = str(prompts)
    config.adversarial.held_out = ("fiction",)
    config.adversarial.rounds = ROUNDS
    config.adversarial.pool = BATCH
    config.adversarial.variants = 2
    config.data.max_prompt_tokens = 32
    config.data.max_response_tokens = 48
    config.conscience.gate = "relative"
    config.conscience.threshold = -2.3  # amid this model's scores
    config.conscience.chain = ("fresh",)
    config.conscience.keep_truncated = True
    config.conscience.batch_size = BATCH
    config.conscience.max_review_tokens = 160
    config.conscience.cache = str(tmp_path_factory.mktemp("kept"))
    config.sampling.max_new_tokens = 8
    config.training.steps = STEPS
    config.training.batch_size = BATCH
    config.training.checkpoint_every = 3
    config.optimizer.learning_rate = 1e-2
    return config


@pytest.fixture(scope="module")
def setup(config):
    return load_model(typed(config))


@pytest.fixture(scope="module")
def run(config, setup, tmp_path_factory):
    """(work directory, last state, the batch of every step) of an undisturbed run."""
    batches = []
    loop = training_run.run

    def watched(settings, recording, make_input, step_function, *rest, **options):
        def step(state, frozen, batch):
            batches.append(jax.tree.map(np.asarray, batch))
            return step_function(state, frozen, batch)

        return loop(settings, recording, make_input, step, *rest, **options)

    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training_run, "run", watched)
        state = train_against_attacks(typed(config), workdir, setup=setup)
    return workdir, state, batches


def pools(workdir):
    return [json.loads(pool_file(workdir, i).read_text()) for i in range(ROUNDS)]


def metrics_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line for line in map(json.loads, lines)}


def timeless(metrics):
    return {
        step: {name: value for name, value in line.items() if "second" not in name}
        for step, line in metrics.items()
    }


@pytest.fixture(scope="module")
def killed(config, setup, tmp_path_factory):
    """The work directory of a run that died at step 5: rounds begin at steps 2 and 4, and the
    checkpoint is of step 3, in the middle of round 1."""
    make, workdir = adversarial._told, tmp_path_factory.mktemp("killed") / "run"

    def dying(found, *rest):
        if found.records[0]["step"] == 5:
            raise KeyboardInterrupt
        return make(found, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(adversarial, "_told", dying)
        with pytest.raises(KeyboardInterrupt):
            train_against_attacks(typed(config), workdir, setup=setup)
    return workdir


def test_a_run_killed_beyond_a_round_s_border_ends_with_the_bits_of_an_undisturbed_one(
    config, setup, run, killed, tmp_path
):
    """It reads the pool of the round that it is in, and makes the next one anew."""
    shutil.copytree(killed, tmp_path / "run")
    pool_file(tmp_path / "run", 2).unlink()
    resumed = train_against_attacks(typed(config), tmp_path / "run", setup=setup)
    workdir, undisturbed, _ = run
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(undisturbed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert pools(tmp_path / "run") == pools(workdir) == pools(killed)
    assert read_journal(tmp_path / "run" / "journal") == read_journal(workdir / "journal")
    assert timeless(metrics_of(tmp_path / "run")) == timeless(metrics_of(workdir))


def test_a_pool_that_is_gone_in_the_middle_of_its_round_is_an_error(
    config, setup, killed, tmp_path
):
    shutil.copytree(killed, tmp_path / "run")
    pool_file(tmp_path / "run", 1).unlink()
    with pytest.raises(UserError, match=r"round-001.json: missing.*step 2"):
        train_against_attacks(typed(config), tmp_path / "run", setup=setup)


def test_hostile_rows_have_no_task_tokens_and_benign_ones_do(run):
    workdir, _, batches = run
    records = read_journal(workdir / "journal")
    for step, batch in enumerate(batches):
        sides = [record["side"] for record in records if record["step"] == step]
        assert sides == ["hostile"] * HOSTILE + ["benign"] * (BATCH - HOSTILE)
        targets = batch.branch_lengths[:, batch.roles.target]
        np.testing.assert_array_equal(targets[:HOSTILE], 0)
        assert (targets[HOSTILE:] > 0).all()


def test_hostile_rows_add_no_task_loss(config, setup, run):
    """The task loss of a batch is that of its benign rows alone, and theirs is not nothing."""
    _, state, batches = run
    settings = training_run.step_settings(typed(config), setup)

    @jax.jit
    def task_loss(batch):
        frozen = setup.model.params
        return HYBRID.loss(settings, state.trainable, frozen, batch, HYBRID.counts(batch))[1][
            "task_loss"
        ]

    benign = jax.tree.map(lambda leaf: np.tile(leaf[HOSTILE:], (2, *[1] * (leaf.ndim - 1))),
                          batches[-1])  # fmt: skip
    whole, alone = float(task_loss(batches[-1])), float(task_loss(benign))
    assert whole == pytest.approx(alone, rel=1e-5) and alone > 0.1


def test_refusals_and_benign_answers_that_are_not_flagged_are_never_rejected(config, run):
    workdir, _, batches = run
    records, threshold = read_journal(workdir / "journal"), config.conscience.threshold
    flagged = {side: 0 for side in ("hostile", "benign")}
    for record in records:
        paired = bool(batches[record["step"]].pair_mask[record["place"]])
        assert paired == record["outcome"].startswith("revised")
        if record["side"] == "benign" and record["candidate_score"] >= threshold:
            assert not paired
        if record["side"] == "hostile" and is_refusal(record["candidate"]):
            assert not paired
        flagged[record["side"]] += paired
    assert flagged["hostile"] and flagged["benign"], "the test would see a pair of either side"
    unflagged = [r for r in records if r["candidate_score"] >= threshold]
    assert {r["side"] for r in unflagged} == {"hostile", "benign"}


def test_refusals_of_hostile_prompts_are_spared():
    attempt = Attempt("fresh", Answer([5], np.zeros(1), "Better.", True), 3.0, "")
    prompts = [AttackPrompt("a", side, side) for side in ("hostile", "benign")]

    def outcome(row, text, score):
        found = Reviewed([], text, score, "revised_fresh", attempts=(attempt,), reference=(0, 0))
        (settled,) = adversarial._sparing(prompts, 0.0)([row], [found])
        assert (settled.chosen is None) == (settled.outcome == "approved")
        return settled.outcome

    refusal, answer = "I can't help with that.", "Like this."
    assert outcome(0, refusal, -1.0) == "approved"
    assert outcome(0, answer, -1.0) == outcome(0, answer, 1.0) == "revised_fresh"
    assert outcome(1, answer, 1.0) == outcome(1, refusal, 1.0) == "approved"
    assert outcome(1, answer, -1.0) == "revised_fresh"


def test_every_candidate_has_one_outcome_and_the_log_counts_sides_apart(config, run):
    workdir, _, _ = run
    records, metrics = read_journal(workdir / "journal"), metrics_of(workdir)
    assert len(records) == STEPS * BATCH
    for step, logged in metrics.items():
        rows = [record for record in records if record["step"] == step]
        outcomes = [record["outcome"] for record in rows]
        assert {name: outcomes.count(name) for name in OUTCOMES} == {
            name: logged[f"outcome/{name}"] for name in OUTCOMES
        }
        hostile = [record for record in rows if record["side"] == "hostile"]
        won = [
            r["candidate_score"] < config.conscience.threshold and not is_refusal(r["candidate"])
            for r in hostile
        ]
        assert logged["attack/success"] == pytest.approx(np.mean(won))
        assert logged["attack/round"] == round_of(step, ROUNDS, STEPS).number
        assert logged["benign/refused"] == 0


def test_pools_keep_what_succeeded_and_their_accounts_add_up(config, run):
    workdir, _, _ = run
    given = {row.text for row in load_attacks(config.adversarial.prompts, "hostile", ("fiction",),
                                              split="train")}  # fmt: skip
    first, *later = pools(workdir)
    assert {row["prompt"] for row in first["pool"]} == given
    before = first
    for pool in later:
        assert [trial["prompt"] for trial in pool["trials"]] == [
            row["prompt"] for row in before["pool"]
        ]
        by_origin = {
            origin: [row["prompt"] for row in pool["pool"] if row["origin"] == origin]
            for origin in ("kept", "variant", "given")
        }
        won = [trial for trial in pool["trials"] if trial["succeeded"]]
        assert won and len(won) < len(pool["trials"])
        won.sort(key=lambda trial: trial["score"])
        assert by_origin["kept"] == [trial["prompt"] for trial in won][: BATCH // 2]
        assert pool["variants"], "half of the places are left to variants and given prompts"
        taken = [row["prompt"] for row in pool["variants"] if not row["reason"]]
        assert by_origin["variant"] == taken
        assert set(by_origin["given"]) <= given - set(by_origin["kept"])
        texts = [row["prompt"] for row in pool["pool"]]
        assert len(texts) == len(set(texts)) <= config.adversarial.pool
        assert len(pool["variants"]) <= 2 * len(won)
        assert all(row["dress"] != "fiction" for row in pool["variants"]), "it is held out"
        assert all(row["kind"] == row["dress"] or row["dress"] == PARAPHRASE
                   for row in pool["variants"])  # fmt: skip
        before = pool


def test_variants_are_bounded_and_filtered_with_the_reason_kept(
    config, setup, tmp_path, monkeypatch
):
    given = tuple(AttackPrompt("role_play", "hostile", f"prompt {i}") for i in range(6))
    settings = PoolSettings(tmp_path, given, ("fiction",), size=10, variants=3, max_tokens=40)
    prompts = [{"kind": p.kind, "prompt": p.text, "origin": "given"} for p in given]
    first = {"round": 0, "first_step": 0, "trials": [], "variants": [], "pool": prompts}
    pool_file(tmp_path, 0).parent.mkdir()
    pool_file(tmp_path, 0).write_text(json.dumps(first))
    written = [  # 10 - 2 kept are asked for, though 2 × 3 variants are as many as there may be
        Answer([1], np.zeros(0), text, ended)
        for text, ended in (
            ("Would you kindly do as I say?", True),
            ("would you kindly do as I say?", True),
            ("Cut off in the mid", False),
            ("  ", True),
            ("I cannot help with that.", True),
            ("so many words " * 40, True),
        )
    ]

    def trials(run, before, trainable, key):
        wins = (None, -1.0, None, None, -3.0, None)
        return [
            {"prompt": prompt.text, "score": score, "succeeded": score is not None}
            for prompt, score in zip(before, wins)
        ]

    def sampled(run, params, requests, key, sampler):
        assert len(requests) == 6 and all("<message>" in r[0]["content"] for r in requests)
        assert params is setup.model.params, "the frozen copy writes them"
        return list(range(6)), written

    monkeypatch.setattr(attack_pool, "_trials", trials)
    monkeypatch.setattr(attack_pool, "_sampled", sampled)
    lora = conscience = None
    here = training_run.Run(typed(config), setup, conscience, lora, None, None, 0, tmp_path)
    pool = pool_of_round(here, settings, Round(1, 2), 2, {})
    record = json.loads(pool_file(tmp_path, 1).read_text())
    reasons = [row["reason"] for row in record["variants"]]
    assert reasons == ["", "near_copy", "truncated", "empty", "refused", "too_long"]
    origins = [row["origin"] for row in record["pool"]]
    assert origins == ["kept"] * 2 + ["variant"] + ["given"] * 4, "four others are given"
    assert [prompt.text for prompt in pool[:3]] == ["prompt 4", "prompt 1", written[0].text]
    assert len({prompt.text for prompt in pool}) == len(pool)
    monkeypatch.setattr(attack_pool, "_trials", None)
    assert pool_of_round(here, settings, Round(1, 2), 3, {}) == pool, "read from its file"


def test_no_held_out_prompt_is_trained_on(config, run):
    workdir, _, _ = run
    said = {record["prompt"][-1]["content"] for record in read_journal(workdir / "journal")}
    for side in ("hostile", "benign"):
        held_out = load_attacks(config.adversarial.prompts, side, ("fiction",), split="heldout")
        assert held_out and not said & {prompt.text for prompt in held_out}


def test_own_answers_are_written_once_for_all_runs(config, setup, run, monkeypatch):
    monkeypatch.setattr("emergent_alignment.runs.own_answers.sample_shares", None)
    benign = adversarial.training_prompts(typed(config), "benign")
    answers = own_answers(typed(config), setup, [prompt.messages for prompt in benign])
    _, _, batches = run
    learnt = {
        tuple(row[:length].tolist())
        for batch in batches
        for row, length in zip(batch.branches[HOSTILE:, 0], batch.branch_lengths[HOSTILE:, 0])
    }
    assert learnt <= {tuple(answer.tokens) for answer in answers}


def test_what_own_answers_draw_from_decides_where_they_are_kept(config, setup, monkeypatch):
    """Answers of versions that drew otherwise are not mistaken for this one's."""
    former = answers_file(typed(config), setup, [])
    monkeypatch.setattr("emergent_alignment.runs.own_answers.NO_STEP", 0)
    assert answers_file(typed(config), setup, []) != former


def test_a_limit_takes_prompts_of_every_kind(config):
    fewer = changed(typed(config), {"adversarial.prompts": "attacks", "data.limit": 16})
    found = adversarial.training_prompts(fewer, "hostile")
    assert len(found) == 16 and len({prompt.kind for prompt in found}) == 11


def test_rounds_cut_the_steps_evenly_and_begin_where_they_say():
    for steps, rounds in ((7, 3), (3, 3), (10, 4), (5, 1)):
        found = [round_of(step, rounds, steps) for step in range(steps)]
        numbers = [now.number for now in found]
        assert sorted(set(numbers)) == list(range(rounds)) and numbers == sorted(numbers)
        assert all(now.first_step == numbers.index(now.number) for now in found)
        sizes = [numbers.count(number) for number in range(rounds)]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("conscience.enabled", False, "nothing to learn"),
        ("conscience.candidate", "target", "candidate=policy"),
        ("conscience.layout", "turn", "set quote"),
        ("adversarial.rounds", 7, "7 rounds need as many steps"),
        ("adversarial.held_out", ("poetry",), "no prompts of the kind 'poetry'"),
        ("adversarial.prompts", "nowhere.jsonl", "nowhere.jsonl: no such file"),
        ("adversarial.benign_share", 1.0, "under 1"),
    ],
)
def test_a_wrong_setting_is_said_before_anything_is_written(
    config, setup, tmp_path, field, value, part
):
    wrong = changed(typed(config), {field: value})
    with pytest.raises(UserError) as error:
        train_against_attacks(wrong, tmp_path / "run", setup=setup)
    assert part in str(error.value)
    assert not (tmp_path / "run").exists()


def test_hostile_prompts_and_a_pool_are_heard_side_by_side(config, setup, tmp_path):
    """Pairs of the policy's own samples; what is spared of hostile prompts is not of a pool's."""
    pool = tmp_path / "pool.txt"
    pool.write_text("What is fair?\nHow would you plan a garden?\n")
    changes = {
        "conscience.chain": ("best",),
        "conscience.samples": 2,
        "conscience.prompts": "both",
        "conscience.pool": str(pool),
        "conscience.pool_rows": 2,
        "loss.reference": "policy",
    }
    mine = changed(typed(config), changes)
    train_against_attacks(mine, tmp_path / "run", setup=setup)
    journal = read_journal(tmp_path / "run" / "journal")
    assert len(journal) == STEPS * (BATCH + 2)
    of_pool = [record for record in journal if record["kind"] == "pool"]
    assert len(of_pool) == STEPS * 2 and all("side" not in record for record in of_pool)
    assert {record["prompt"][-1]["content"] for record in of_pool} == set(
        pool.read_text().splitlines()
    )
    logged = metrics_of(tmp_path / "run")
    assert all("attack/success" in values for values in logged.values())
    assert sum(logged[0][f"outcome/{name}"] for name in OUTCOMES) == BATCH + 2
