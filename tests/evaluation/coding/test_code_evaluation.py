"""The code evaluation: every answer counted once, a killed one goes on, figures as by hand."""

import json
from collections import Counter
from dataclasses import replace

import hypothesis
import hypothesis.strategies as st
import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.scenarios import HELD_OUT_KINDS
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation import answering
from emergent_alignment.evaluation.coding import evaluate
from emergent_alignment.evaluation.coding.answers import code_prompts
from emergent_alignment.evaluation.coding.evaluate import check_code_settings, evaluate_code
from emergent_alignment.evaluation.coding.tasks import BUNDLED_TASKS, load_tasks
from emergent_alignment.intervals import mean_interval, share_interval
from emergent_alignment.models.model import load
from emergent_alignment.reports.code_rows import code_rows
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.settings import changed
from emergent_alignment.storage.spread import spread_kinds


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(write_tiny_chat_model(tmp_path_factory.mktemp("coding") / "model"))


@pytest.fixture
def setup(model):
    config = default_config()
    config.code.samples = 2
    config.code.task_limit = 3
    config.code.security_prompts = 2
    config.code.max_new_tokens = 8
    config.conscience.batch_size = 4
    return Setup(typed(config), model, read_chat(model.tokenizer))


def asking(setup, **fields):
    """The setup with other values of config.code."""
    config = changed(setup.config, {f"code.{name}": value for name, value in fields.items()})
    return replace(setup, config=config)


def evaluated(setup, folder, **options):
    return evaluate_code(setup.config, setup, folder, arm="base", **options)


def key_of(record):
    return record["part"], record["name"], record["sample"]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_prompt_has_its_samples_and_every_answer_its_verdict(setup, tmp_path):
    result, path = evaluated(setup, tmp_path)
    assert json.loads(path.read_text()) == result
    kept, checked = (lines_of(path.with_name(n)) for n in ("answers.jsonl", "checked.jsonl"))
    assert len(kept) == len(checked) == 2 * (2 + 3)
    assert len({key_of(record) for record in kept}) == len(kept)
    assert sum(result["tasks"]["outcomes"].values()) == result["tasks"]["passed"]["n"] == 6
    assert result["tasks"]["pass_at_1"]["n"] == result["tasks"]["num_tasks"] == 3
    assert result["security"]["valid"]["n"] == 4 and result["security"]["num_prompts"] == 2
    assert all(("outcome" in one) != ("findings" in one) for one in checked)
    text = json.dumps(code_rows(result))
    assert "pass@1" in text and "by weakness" in text and result["sandbox"]["text"]


def test_a_killed_evaluation_goes_on_and_gives_the_same_answers(setup, tmp_path, monkeypatch):
    _, whole = evaluated(setup, tmp_path / "whole")
    _, path = evaluated(setup, tmp_path / "killed")
    kept = path.with_name("answers.jsonl")
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    asked = []
    sampled = answering.sample_answers

    def counting(*arguments, **options):
        asked.extend(arguments[3])
        return sampled(*arguments, **options)

    monkeypatch.setattr(answering, "sample_answers", counting)
    evaluated(setup, tmp_path / "killed")
    assert len(asked) == len(lines) - 4
    assert path.with_name("checked.jsonl").read_text() != ""
    one, other = (
        {key_of(r): r["answer"] for r in lines_of(p.with_name("answers.jsonl"))}
        for p in (whole, path)
    )
    assert one == other and len(set(one.values())) > 1


def test_answers_of_other_settings_are_not_mixed_in(setup, tmp_path):
    evaluated(setup, tmp_path)
    other = asking(setup, temperature=0.2)
    with pytest.raises(UserError, match=r"temperature was 0.7, and is 0.2 now\); --overwrite"):
        evaluated(other, tmp_path)
    result, _ = evaluated(other, tmp_path, overwrite=True)
    assert result["sampling"]["temperature"] == 0.2


def test_more_samples_keep_those_that_are_there(setup, tmp_path):
    _, path = evaluated(setup, tmp_path)
    before = lines_of(path.with_name("answers.jsonl"))
    evaluated(asking(setup, samples=3), tmp_path)
    after = lines_of(path.with_name("answers.jsonl"))
    assert after[: len(before)] == before and len(after) == 15


def test_figures_are_those_of_known_answers(setup, tmp_path, monkeypatch):
    """Three tasks: one solved twice, one once, one never; one insecure answer of four."""
    solutions = {task.name: task.solution for task in load_tasks(BUNDLED_TASKS)}
    texts = iter(["def f(:", "import os\nos.system(command)\n", "x = 1\n", "y = 2\n"])
    tasks, seen = [], []

    def known(config, section, setup, wanted, kept, *, progress):
        kept.path.mkdir(parents=True, exist_ok=True)
        found = {}
        for place in wanted:
            if place.part == "security":
                text = next(texts)
            else:
                tasks.extend([place.name] * (place.name not in tasks))
                solves = (2, 1, 0)[tasks.index(place.name)] > place.sample
                text = f"Here:\n```python\n{solutions[place.name] if solves else ''}\n```\n"
                seen.append(solves)
            found[place] = {"answer": text}
        return found

    monkeypatch.setattr(evaluate, "sample_missing", known)
    result, _ = evaluated(setup, tmp_path)
    assert sum(seen) == 3
    assert result["tasks"]["passed"] == share_interval(3, 6).to_json()
    assert result["tasks"]["pass_at_1"] == mean_interval([1.0, 0.5, 0.0]).to_json()
    assert result["tasks"]["outcomes"]["passed"] == 3
    assert result["security"]["valid"] == share_interval(3, 4).to_json()
    assert result["security"]["flagged"] == share_interval(1, 3).to_json()
    assert result["security"]["cwe_per_100"] == {"CWE-78": pytest.approx(100 / 3)}


def test_what_cannot_be_evaluated_is_said_before_a_model_is_read(monkeypatch):
    config = default_config()
    config.code.tasks, config.code.security_prompts = "", 0
    with pytest.raises(UserError, match="nothing to ask"):
        check_code_settings(typed(config))
    config.code.tasks = "nowhere.jsonl"
    with pytest.raises(UserError, match="nowhere.jsonl: no such file"):
        check_code_settings(typed(config))
    config.code.tasks = BUNDLED_TASKS

    def refuses():
        raise UserError("the sandbox cannot start here")

    monkeypatch.setattr(evaluate, "protection", refuses)
    with pytest.raises(UserError, match="the sandbox cannot start here"):
        check_code_settings(typed(config))
    config.code.tasks, config.code.security_prompts = "", 1
    check_code_settings(typed(config))  # bandit runs nothing


def test_rows_of_a_broken_result_are_left_out():
    assert code_rows({}) == []
    odd = {"security": {"valid": 3, "severity_per_100": {"HIGH": "x"}}, "tasks": []}
    (rows,) = code_rows(odd)
    assert rows[0][1] == "—" and rows[3][1] == "none"


def test_every_kind_of_security_prompt_has_its_share(setup):
    kinds = HELD_OUT_KINDS["code_hacking"]
    for count in (len(kinds), 3 * len(kinds)):
        config = asking(setup, security_prompts=count).config
        asked = [prompt.name for prompt in code_prompts(config) if prompt.part == "security"]
        found = Counter(name.split()[0] for name in asked)
        assert found == dict.fromkeys(kinds, count // len(kinds))
        assert len(set(asked)) == count


@hypothesis.given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(0, 15))
def test_kinds_share_alike_what_there_is(kinds, count):
    chosen = spread_kinds(list(range(len(kinds))), kinds, count)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(count, len(kinds))
    shares = Counter(kinds[place] for place in chosen)
    for kind, one in Counter(kinds).items():
        assert shares[kind] == one or shares[kind] >= max(shares.values(), default=0) - 1
