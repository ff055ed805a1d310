"""Stage 2 on a tiny chat model: resumed to the same bits, every answer counted once."""

import json
from dataclasses import replace

import numpy as np
import pytest
from interrupting import Killed
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.data.sources import load_examples
from emergent_alignment.errors import UserError
from emergent_alignment.generation.text import Answer
from emergent_alignment.runs.from_config import load_model
from emergent_alignment.self_align.answers import review, sampling, stage
from emergent_alignment.self_align.answers.filters import ANSWER_RULES
from emergent_alignment.self_align.answers.guidance import read_guidance
from emergent_alignment.self_align.answers.prompt import prompt_rows
from emergent_alignment.self_align.stages import StageRun, stage_folder
from emergent_alignment.settings import changed

GOOD = "helpful, since a plan is wanted.\nAnswer: First fill the kettle, then wait until it boils"
NUM_ROWS = 11


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny"))
    return load_model(typed(config))


@pytest.fixture
def made(setup, tmp_path):
    """made(name, **fields of config.self_align.answers): a StageRun over eleven instructions."""
    files = tmp_path / "principles.yaml", tmp_path / "examples.yaml"
    files[0].write_text("- {number: 1, name: helpful, text: Help.}")
    files[1].write_text('- {instruction: "Tea?", thoughts: helpful, answer: "Yes."}')

    def build(name="run", **fields):
        config = default_config()
        config.conscience.update({"chain": ("fresh",), "batch_size": 4, "max_review_tokens": 160})
        config.conscience.update({"keep_truncated": True, "verdicts": "chance"})
        config.sampling.max_new_tokens = 8
        answers = {"batch_size": 2, "max_new_tokens": 6, "principles": str(files[0])}
        config.self_align.answers.update(answers | {"examples": str(files[1])} | fields)
        folders = {number: stage_folder(tmp_path / name, number) for number in (1, 2)}
        for folder in folders.values():
            folder.path.mkdir(parents=True, exist_ok=True)
        rows = [{"instruction": f"Say {'so ' * i}please", "kind": "seed"} for i in range(NUM_ROWS)]
        folders[1].write_rows(rows)
        return StageRun(typed(config), folders[2], {1: folders[1]}, setup)

    return build


def say(monkeypatch, texts, ended=True):
    """The model writes these texts, in turn."""

    def sample(model, params, chat, prompts, key, settings, batching, **options):
        for index, place in enumerate(batching.ids):
            text = texts[place % len(texts)]
            yield index, Answer([1] * 5, np.zeros(5, np.float32), text, ended)

    monkeypatch.setattr(sampling, "sample_shares", sample)


def sampled(run):
    rows = [row["instruction"] for row in run.inputs[1].rows()]
    prompts = prompt_rows(run.setup.chat, read_guidance(run.config.self_align.answers), rows)
    return sampling.sampled_answers(run, prompts)


@pytest.mark.long
def test_a_killed_sampling_goes_on_to_the_same_answers(made, monkeypatch):
    monkeypatch.setattr(sampling, "ROUND_BATCHES", 2)
    expected = sampled(made("whole"))
    assert [record["place"] for record in expected] == list(range(NUM_ROWS))
    run, append = made("killed"), sampling.append_json_lines
    calls = []

    def dying(file, records):
        calls.append(records)
        if len(calls) == 7:  # in the second round
            file.write(b'{"place": 9, "te')
            raise Killed
        append(file, records)

    with monkeypatch.context() as patched:
        patched.setattr(sampling, "append_json_lines", dying)
        with pytest.raises(Killed):
            sampled(run)
    begun = [record["place"] for record in run.folder.kept.records("answers")]
    assert len(begun) == 6
    rounds, sample = [], sampling.sample_shares

    def counted(*arguments, **options):
        rounds.append(len(arguments[-1].ids))
        return sample(*arguments, **options)

    monkeypatch.setattr(sampling, "sample_shares", counted)
    assert sampled(run) == expected
    assert rounds == [4, 3], "the first round is not sampled again"
    assert len(list(run.folder.kept.records("answers"))) == NUM_ROWS


def test_other_principles_in_a_file_of_the_same_name_are_noticed(made):
    run = made()
    sampled(run)
    path = run.config.self_align.answers.principles
    with open(path, "a") as file:
        file.write("\n- {number: 2, name: brief, text: Be brief.}")
    with pytest.raises(UserError, match="answers to other principles.*--workdir"):
        sampled(run)


def test_every_answer_is_kept_or_dropped_by_one_rule(made, monkeypatch):
    texts = [
        GOOD,
        "no answer",
        "kind.\nAnswer: " + "all is well here " * 3,
        "helpful.\nAnswer: yes",
        "helpful.\nAnswer: " + "and then we go on " * 5,
    ]
    say(monkeypatch, texts)
    run = made()
    result = stage.run(run)
    counts = result.counts
    assert counts["made"] == NUM_ROWS
    assert counts["dropped"] == dict.fromkeys(ANSWER_RULES, 0) | {
        "format": 2,
        "unnamed": 2,
        "short": 2,
        "repeats": 2,
    }
    assert counts["kept"] == 3 and counts["principles"] == {"helpful": 3}
    rows = run.folder.rows()
    assert [row["prompt"] for row in rows] == [
        run.inputs[1].rows()[i]["instruction"] for i in (0, 5, 10)
    ]
    assert all(row["response"] == GOOD.partition("Answer: ")[2] for row in rows)
    assert all(row["principles"] == ["helpful"] and row["ended"] for row in rows)
    assert len(load_examples(str(run.folder.data), columns="answer=response")) == 3
    json.dumps(result.examples)
    assert {shown["dropped_by"] for shown in result.examples} == {
        "", "format", "unnamed", "short", "repeats",
    }  # fmt: skip


def test_unended_answers_are_kept_only_where_that_is_asked_for(made, monkeypatch):
    say(monkeypatch, [GOOD], ended=False)
    with pytest.raises(UserError) as raised:
        stage.run(made())
    said = str(raised.value)
    assert "no answer is left, of 11: unended 11 (" in said and "require_end=False" in said
    assert not (made().folder.path / "data.jsonl").exists()
    run = made("kept", require_end=False)
    assert stage.run(run).counts["kept"] == NUM_ROWS
    assert not any(row["ended"] for row in run.folder.rows())


def test_the_limit_takes_instructions_from_all_over_the_list(made, monkeypatch):
    say(monkeypatch, [GOOD])
    run = made(limit=3)
    stage.run(run)
    rows = run.inputs[1].rows()
    assert [row["prompt"] for row in run.folder.rows()] == [
        rows[i]["instruction"] for i in (0, 3, 7)
    ]


def test_the_conscience_reviews_what_the_filters_keep_and_a_kill_changes_nothing(made, monkeypatch):
    say(monkeypatch, [GOOD, "no answer"])
    fields = {"review": True, "require_end": False, "min_words": 1, "max_repeated": 1.0}
    whole = made("whole", **fields)
    counts = stage.run(whole).counts
    assert sum(counts["review"].values()) == 6 and counts["review"].keys() == set(OUTCOMES)
    assert counts["kept"] + sum(counts["dropped"].values()) == NUM_ROWS
    assert counts["dropped"]["conscience"] == 0, "every correction passes"
    replaced = [row for row in whole.folder.rows() if row["response"] != GOOD.split("Answer: ")[1]]
    assert 0 < len(replaced) == counts["review"]["revised_fresh"] < 6
    assert not any(row["ended"] for row in replaced)
    run, append = made("killed", **fields), review.append_json_lines

    def dying(file, records):
        if any(record["place"] == 8 for record in records):
            raise Killed
        append(file, records)

    with monkeypatch.context() as patched:
        patched.setattr(review, "append_json_lines", dying)
        with pytest.raises(Killed):
            stage.run(run)
    assert stage.run(run).counts == counts
    assert run.folder.rows() == whole.folder.rows()


def test_flagged_answers_without_a_correction_are_dropped(made, monkeypatch):
    say(monkeypatch, [GOOD])
    run = made(review=True)
    rates = {"conscience.chance_flag_rate": 1.0, "conscience.chance_pass_rate": 0.0}
    run = replace(run, config=changed(run.config, rates))
    with pytest.raises(UserError, match="conscience 11 .*config.conscience.threshold"):
        stage.run(run)


def test_a_prompt_beyond_the_models_positions_is_an_error(made):
    run = made(max_new_tokens=10**6)
    with pytest.raises(UserError, match="longest prompt and answer take 1000[0-9]* tokens"):
        stage.run(run)


def test_wrong_files_are_found_before_any_work(made, tmp_path):
    config = made(examples=str(tmp_path / "none.yaml")).config
    with pytest.raises(UserError, match="none.yaml: no such file"):
        stage.check(config)
    stage.check(Config())
