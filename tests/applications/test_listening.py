"""Ways to correct, prompts to listen to, rounds and their replay, and λ as a price, on a tiny chat
model: each resumes to the bit, and does what it says."""

import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interrupting import Killed, assert_bitwise_equal, interrupted_at, metrics_of
from tiny_chat_model import tiny_chat_tokenizer
from tiny_runs import tiny_run_config

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.conscience.question import named_question
from emergent_alignment.data.sources import load_examples
from emergent_alignment.errors import UserError
from emergent_alignment.runs import forking, step_policy, training_run
from emergent_alignment.runs.price import price
from emergent_alignment.runs.yardstick import RoundScores, own_level
from emergent_alignment.training.task_and_pairs import TaskAndPairsView

TASK, POLICY = {"conscience.prompts": "task"}, {"loss.reference": "policy"}
WAYS = {
    "what is not named": {"conscience.chain": ("auto",)},
    "self": {"conscience.chain": ("self",)} | TASK,
    "best": {"conscience.chain": ("best",), "conscience.samples": 3} | TASK | POLICY,
    "fork": {"conscience.chain": ("fork",), "conscience.samples": 3} | TASK,
    "fork, own": {
        "conscience.chain": ("fork",),
        "conscience.samples": 3,
        "conscience.gate": "own",
        "conscience.own_flags": 0.5,
        "conscience.own_answers": 8,
    },
    "amend, at the turn": {
        "conscience.chain": ("fork", "amend"),
        "conscience.cuts": "turn",
        "sampling.max_new_tokens": 16,
    },
    "self against the policy": {"conscience.chain": ("self", "fresh")} | POLICY,
    "pool": {"conscience.prompts": "pool", "conscience.pool_rows": 2},
    "both, with replay": {
        "conscience.prompts": "both",
        "conscience.pool_rows": 2,
        "conscience.every": 2,
        "conscience.replay": 4,
    },
    "both, ahead": {
        "conscience.prompts": "both",
        "conscience.pool_rows": 2,
        "conscience.every": 2,
        "conscience.replay": 4,
        "conscience.ahead": True,
    },
    "auto": {"loss.alignment_weight": "auto", "loss.price.yardstick": 6},
    "auto, replayed": {
        "loss.alignment_weight": "auto",
        "conscience.every": 2,
        "conscience.yardstick_every": 1,
    },
}


@pytest.fixture
def config(model_directory):
    config = tiny_run_config(model_directory)
    config.training.checkpoint_every = 1
    return config


@pytest.mark.long
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


def rounds_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def steps_of_run(config, folder, monkeypatch) -> list[tuple]:
    """(batch, weights where there are any) of every step, as the loop gives them to its step."""
    given = []
    make = training_run.compiled_step

    def recorded(*arguments, **options):
        step = make(*arguments, **options)

        def one(state, frozen, *inputs):
            given.append(inputs)
            return step(state, frozen, *inputs)

        return one

    monkeypatch.setattr(training_run, "compiled_step", recorded)
    finetune(typed(config), folder)
    return given


def test_a_pair_is_used_in_as_many_steps_as_replay_says(config, tmp_path, monkeypatch):
    config.conscience.update({"every": 2, "replay": 4})
    batches = [batch for (batch,) in steps_of_run(config, tmp_path, monkeypatch)]
    made = rounds_of(tmp_path)
    assert [one["step"] for one in made] == [0, 2]
    uses = Counter()
    for batch in batches:
        num_pairs = batch.heard.pair_mask.sum()
        assert batch.heard.prompt.shape[0] == next(n for n in (2, 4, 8) if n >= num_pairs)
        for row in np.flatnonzero(batch.heard.pair_mask):
            prompt = batch.heard.prompt[row, : batch.heard.prompt_lengths[row]]
            chosen = batch.heard.branches[row, 0, : batch.heard.branch_lengths[row, 0]]
            uses[(*prompt.tolist(), *chosen.tolist())] += 1
    pairs = [[row for row in one["rows"] if row["chosen"]] for one in made]
    assert all(pairs)
    expected = Counter()
    for rows, steps in zip(pairs, (4, 2)):
        for row in rows:
            expected[(*row["prompt"], *row["chosen"])] += steps
    assert uses == expected
    # All that was listened to is counted: one round so far, and then two.
    counts = [TaskAndPairsView.counts(jax.tree.map(jnp.asarray, batch)) for batch in batches]
    prompts = [float(count["prompts"]) for count in counts]
    assert prompts == [4, 4, 8, 8]


def test_a_pool_is_listened_to_and_the_task_s_rows_have_no_pairs(config, tmp_path, monkeypatch):
    pool = tmp_path / "pool.txt"
    pool.write_text("What is fair?\nHow would you plan a garden?\nWho should decide?\n")
    config.conscience.update({"prompts": "pool", "pool": str(pool), "pool_rows": 3})
    batches = [batch for (batch,) in steps_of_run(config, tmp_path / "run", monkeypatch)]
    assert all(batch.task.roles.num_branches == 1 for batch in batches)
    assert all(batch.heard.counted.sum() == 3 for batch in batches)
    journal = read_journal(tmp_path / "run" / "journal")
    asked = {record["prompt"][-1]["content"] for record in journal}
    assert asked == set(pool.read_text().splitlines())
    assert {record["kind"] for record in journal} == {"pool"} and len(journal) == 4 * 3


def test_a_pool_that_microbatches_do_not_cut_is_one_line_on_one_device_too(config, tmp_path):
    config.conscience.update({"prompts": "pool", "pool_rows": 3})
    config.training.accumulation = 2
    with pytest.raises(
        UserError, match=r"pool_rows: 3 prompts a round, and 3 rows .* multiple of 2"
    ):
        finetune(typed(config), tmp_path)


@pytest.mark.parametrize("chain", [("best",), ("fork",), ("amend",), ("self", "fresh")])
def test_at_the_moment_of_sampling_the_policy_is_its_own_reference(config, tmp_path, chain):
    """Δ = 0 for both answers of a pair, so that the loss is log 2 at every step."""
    config.conscience.chain, config.loss.reference = chain, "policy"
    config.optimizer.warmup_steps = 0
    finetune(typed(config), tmp_path)
    logged = metrics_of(tmp_path)
    paired = [values for values in logged.values() if values["pair_rate"]]
    assert len(paired) > 1
    for values in paired:
        assert abs(values["rewards_chosen"]) < 1e-4 > abs(values["rewards_rejected"])
        expected = np.log(2) * values["pair_rate"]
        np.testing.assert_allclose(values["alignment_loss"], expected, rtol=1e-4)
    # The KL to the frozen copy is of the samples, and grows as training goes on.
    assert abs(logged[0].get("kl/samples", 0)) < 1e-4
    assert any(abs(values.get("kl/samples", 0)) > 1e-3 for values in paired)


def judged_by_length(conversation, answer: str) -> float:
    return float(len(answer))


def test_best_takes_the_highest_over_the_lowest_of_the_policy_s_own_samples(config, tmp_path):
    judge = f"python:{__name__}.judged_by_length"
    config.conscience.update({"chain": ("best",), "samples": 4, "verdicts": judge})
    finetune(typed(config), tmp_path)
    revised = [
        record
        for record in read_journal(tmp_path / "journal")
        if record["outcome"] == "revised_best"
    ]
    assert revised
    for record in revised:
        assert record["scored_by"] == "judge"
        assert record["candidate_score"] == len(record["candidate"])
        assert record["revision_score"] == len(record["revision"]) > record["candidate_score"]
    logged = metrics_of(tmp_path)[0]
    assert logged["score/candidate"] < logged["score/samples"] < logged["score/chosen"]


@pytest.mark.parametrize("link", ["fork", "amend"])
def test_a_fork_begins_as_its_candidate_does_and_may_be_taken(config, tmp_path, monkeypatch, link):
    judge = f"python:{__name__}.judged_by_length"
    config.conscience.update({"chain": (link,), "samples": 4, "verdicts": judge})
    config.conscience.update({"gate": "score", "threshold": 20.0, "prompts": "task"})
    batches = [batch for (batch,) in steps_of_run(config, tmp_path, monkeypatch)]
    records = read_journal(tmp_path / "journal")
    revised = [record for record in records if record["outcome"] == f"revised_{link}"]
    assert revised and all(len(one["candidate"]) < 20 <= len(one["revision"]) for one in revised)
    assert all(len(one["candidate"]) >= 20 for one in records if one["outcome"] == "approved")
    shared = []
    for batch in batches:
        for row in np.flatnonzero(batch.pair_mask):
            chosen, rejected = (
                batch.branches[row, i, : batch.branch_lengths[row, i]].tolist()
                for i in (batch.roles.chosen, batch.roles.rejected)
            )
            assert chosen != rejected
            shared.append(sum(np.cumprod([a == b for a, b in zip(chosen, rejected)])))
    assert max(shared) > 0, "some begin alike"


@pytest.mark.parametrize("link", ["fork", "amend"])
def test_at_the_turn_a_pair_is_of_phrases(config, tmp_path, monkeypatch, link):
    """Both answers begin alike, and differ in at most eight tokens; the policy's begins with
    another token than the candidate's, the frozen copy's are its own."""
    config.conscience.update({"chain": (link,), "cuts": "turn", "samples": 2})
    config.sampling.max_new_tokens = 24
    by_frozen, sample = [], forking.sampled

    def recorded(run, params, *rest):
        by_frozen.append(params is run.setup.model.params)
        return sample(run, params, *rest)

    monkeypatch.setattr(forking, "sampled", recorded)
    batches = [batch for (batch,) in steps_of_run(config, tmp_path, monkeypatch)]
    assert by_frozen and set(by_frozen) == {link == "amend"}
    shared = []
    for heard in (batch.heard for batch in batches):
        for row in np.flatnonzero(heard.pair_mask):
            chosen, rejected = (
                heard.branches[row, i, : heard.branch_lengths[row, i]].tolist()
                for i in (heard.roles.chosen, heard.roles.rejected)
            )
            alike = int(np.cumprod([a == b for a, b in zip(chosen, rejected)]).sum())
            assert len(chosen) <= len(rejected) and 0 < len(chosen) - alike <= 8
            shared.append(alike)
    assert max(shared) > 0


def test_phrases_are_not_compared_with_the_frozen_copy(config, tmp_path):
    config.conscience.update({"chain": ("fork",), "cuts": "turn"})
    config.loss.reference = "frozen"
    with pytest.raises(UserError, match=r"config\.conscience\.cuts.*loss\.reference=policy"):
        finetune(typed(config), tmp_path)


def test_own_flags_what_scores_below_what_the_frozen_copy_writes(config, tmp_path):
    config.conscience.update({"chain": ("fork",), "gate": "own", "own_answers": 8})
    config.conscience.own_flags = 0.4
    finetune(typed(config), tmp_path)
    known: list[float] = []
    journal, outcomes = read_journal(tmp_path / "journal"), Counter()
    for measured in rounds_of(tmp_path):
        known += measured["yardstick"]
        level = own_level(known, 0.4)
        for record in [one for one in journal if one["step"] == measured["step"]]:
            approved = record["outcome"] == "approved"
            assert approved == (record["candidate_score"] >= level)
            outcomes[approved] += 1
    assert len(known) == 8 and min(outcomes[True], outcomes[False]) > 0


def test_self_is_asked_behind_the_question_and_trained_without_it(config, tmp_path, monkeypatch):
    config.conscience.update({"chain": ("self",), "prompts": "task"})
    asked, sample = [], step_policy.sampled
    decode = tiny_chat_tokenizer().decode

    def recorded(run, params, prompts, *rest):
        asked.append([decode(prompt) for prompt in prompts])
        return sample(run, params, prompts, *rest)

    monkeypatch.setattr(step_policy, "sampled", recorded)
    batches = [batch for (batch,) in steps_of_run(config, tmp_path, monkeypatch)]
    question = named_question(config.conscience.question).positive
    plain, before = asked[0], asked[1]
    assert not any(question in text for text in plain)
    assert all(text.startswith("<|im_start|>system") and question in text for text in before)
    for batch in batches:
        rows = zip(batch.prompt, batch.prompt_lengths)
        assert not any(question in decode(row[:length].tolist()) for row, length in rows)


def test_the_price_follows_the_scores_and_the_step_takes_it(config, tmp_path, monkeypatch):
    config.loss.alignment_weight = "auto"
    config.loss.price.update({"yardstick": 6, "rate": 0.1})
    given = steps_of_run(config, tmp_path, monkeypatch)
    weights = [float(weights["alignment_loss"]) for _, weights in given]
    rounds = [RoundScores(one["scores"], one["yardstick"]) for one in rounds_of(tmp_path)]
    section = typed(config).loss.price
    expected = [price(rounds[: step + 1], section) for step in range(4)]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert len(set(weights)) > 1, "it moves"
    assert [len(one.yardstick) for one in rounds] == [4, 4, 0, 0]
    logged = metrics_of(tmp_path)
    np.testing.assert_allclose(logged[2]["weight/alignment_loss"], expected[2], rtol=1e-5)
    assert 0 <= logged[0]["conscience/auc_current"] <= 1


def test_fixed_pairs_are_watched_at_intervals(config, tmp_path):
    config.training.watch_every = 2
    finetune(typed(config), tmp_path)
    logged = metrics_of(tmp_path)
    assert "watched/margin" not in logged[1] and abs(logged[0]["watched/margin_moved"]) < 1e-3
    assert abs(logged[2]["watched/margin_moved"]) > 1e-3
    assert 0 <= logged[2]["watched/accuracy"] <= 1


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"conscience.replay": 3, "conscience.every": 2}, "no multiple of every"),
        ({"conscience.replay": 8}, "outlive the run of 4"),
        ({"conscience.every": 2, "conscience.candidate": "target"}, "need candidate=policy"),
        ({"loss.alignment_weight": "auto", "conscience.verdicts": "chance"}, "there is none"),
        ({"loss.alignment_weight": "auto", "conscience.enabled": False}, "there is none"),
        ({"loss.reference": "policy", "conscience.candidate": "target"}, "set frozen"),
        ({"conscience.keeps": "Verdict: .*Tip"}, "none of the 10 targets"),
        ({"conscience.keeps": "("}, "no regular expression"),
        (
            {"conscience.gate": "own", "conscience.candidate": "target"},
            "a level of what is sampled",
        ),
        ({"conscience.length_ratio": (1.4, 0.7)}, "least, most"),
        ({"conscience.prompts": "pool", "conscience.pool": "nowhere"}, "no such file"),
        (
            {"conscience.verdicts": "lottery"},
            "known: own, chance, none, python:module.function, entry:name",
        ),
        ({"conscience.verdicts": "python:nowhere.at_all"}, "cannot be imported"),
    ],
)
def test_what_cannot_be_meant_is_one_line_before_anything_runs(config, tmp_path, changes, said):
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=said) as caught:
        finetune(typed(config), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_pool_that_is_evaluated_on_is_named_with_its_prompts(config, tmp_path):
    held_out = load_examples("harmful_advice", split="test")[0].messages[-1]["content"]
    pool = tmp_path / "pool.txt"
    pool.write_text(f"What is fair?\n{held_out.upper()}\n")
    config.conscience.update({"prompts": "both", "pool": str(pool)})
    with pytest.raises(UserError, match="1 of its 2 prompts are also in harmful_advice") as caught:
        finetune(typed(config), tmp_path / "run")
    assert held_out.upper() in str(caught.value)
