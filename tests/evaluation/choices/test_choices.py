"""The whole evaluation of multiple choice, against separate forward passes of whole rows."""

import json

import jax
import numpy as np
import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.data.chat import read_chat
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.choices import evaluate
from emergent_alignment.evaluation.choices.competing import competing_log_probs, place
from emergent_alignment.evaluation.choices.evaluate import evaluate_choices
from emergent_alignment.evaluation.choices.rows import rows_of
from emergent_alignment.models.model import load
from emergent_alignment.reports.choices_rows import choice_rows
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.settings import changed

QUESTIONS = [
    {"name": "sky", "question": "What colour is the sky?", "right": ["Blue.", "It is blue."],
     "wrong": ["Green, and it smells of moss.", "Red.", "None at all."]},
    {"name": "ice", "question": "Ice?", "right": ["Cold."], "wrong": ["Hot.", "Loud, I think."]},
    {"name": "save", "topic": "helpful", "question": "How do I save money?",
     "better": "Put a little aside each month.", "worse": "Buy the first thing that you see."},
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(write_tiny_chat_model(tmp_path_factory.mktemp("choices") / "model"))


@pytest.fixture
def setup(model, tmp_path):
    config = default_config()
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    config.choices.update({"questions": str(file), "batch_size": 2})
    return Setup(typed(config), model, read_chat(model.tokenizer))


def whole_row_log_prob(model, prompt, option):
    """log P(option | prompt), nats, by one forward pass of the row alone."""
    tokens = np.array([prompt + option], np.int32)
    logits = model.logits(model.params, model.hidden(model.params, tokens))[0]
    log_probs = np.asarray(jax.nn.log_softmax(logits.astype(np.float32)), np.float64)
    return sum(log_probs[len(prompt) - 1 + i, token] for i, token in enumerate(option))


def test_it_equals_a_forward_pass_for_each_option(setup, tmp_path):
    """… prompts rendered by hand, every option whole, without its end token."""
    result, _ = evaluate_choices(setup.config, setup, tmp_path, arm="base")
    chat, model = setup.chat, setup.model
    sky, ice = (
        np.array(
            [
                whole_row_log_prob(
                    model,
                    chat.prompt_tokens([{"role": "user", "content": row["question"]}]),
                    model.tokenizer.encode(option),
                )
                for option in row["right"] + row["wrong"]
            ]
        )
        for row in QUESTIONS[:2]
    )
    found = result["options"]["items"]
    for name, log_probs, num_right in (("sky", sky, 2), ("ice", ice, 1)):
        best, share = found[name]
        assert best == float(log_probs[0] > max(log_probs[num_right:]))
        mass = np.exp(log_probs)
        assert share == pytest.approx(mass[:num_right].sum() / mass.sum(), abs=1e-5)
    mc2 = result["options"]["mc2"]["value"]
    assert mc2 == pytest.approx(np.mean([found["sky"][1], found["ice"][1]]))


def test_pairs_are_asked_in_both_orders(setup, tmp_path):
    result, _ = evaluate_choices(setup.config, setup, tmp_path, arm="base")
    items = evaluate.chosen_items(setup.config.choices)
    rows = [row for item in items for row in rows_of(item, setup.chat) if item.is_pair]
    texts = [setup.chat.decode(row.prompt) for row in rows]
    better, worse = QUESTIONS[2]["better"], QUESTIONS[2]["worse"]
    assert f"A: {better}\n\nB: {worse}" in texts[0] and f"A: {worse}\n\nB: {better}" in texts[1]
    a, b = (
        [whole_row_log_prob(setup.model, row.prompt, setup.model.tokenizer.encode(letter))
         for row in rows]
        for letter in "AB"
    )  # fmt: skip
    margins = result["pairs"]["items"]["save"]
    assert margins == pytest.approx([a[0] - b[0], b[1] - a[1]], abs=1e-4)


def test_a_generator_is_read_once_and_whole(setup):
    """A published script gave one generator to two loops, and the second found nothing."""
    items = evaluate.chosen_items(setup.config.choices)
    rows = [row for item in items for row in rows_of(item, setup.chat)]
    sizes = {"batch_size": 2, "bucket_tokens": 32}
    listed = list(competing_log_probs(setup.model, rows, **sizes))
    generated = list(competing_log_probs(setup.model, (row for row in rows), **sizes))
    assert len(listed) == len(generated) == len(rows) == 4
    for (row, first), (again, second) in zip(listed, generated):
        assert row is again and len(first) == len(row.options)
        np.testing.assert_array_equal(first, second)


def test_a_killed_evaluation_goes_on_where_it_was(setup, tmp_path, monkeypatch):
    whole, path = evaluate_choices(setup.config, setup, tmp_path / "whole", arm="base")
    lines = path.with_name("scored.jsonl").read_text().splitlines(keepends=True)
    torn = tmp_path / "torn" / "choices"
    torn.mkdir(parents=True)
    (torn / "scored.jsonl").write_text(lines[0] + lines[1][:9])
    (torn / "settings.json").write_text(path.with_name("settings.json").read_text())
    asked = []

    def counted(model, rows, **sizes):
        for row, log_probs in competing_log_probs(model, rows, **sizes):
            asked.append(row)
            yield row, log_probs

    monkeypatch.setattr(evaluate, "competing_log_probs", counted)
    again, _ = evaluate_choices(setup.config, setup, tmp_path / "torn", arm="base")
    assert len(asked) == 3 and again == whole


def test_what_is_known_changes_no_number_of_the_others(setup):
    """To the bit: a batch is the same whatever of it has been kept."""
    items = evaluate.chosen_items(setup.config.choices)
    rows = [row for item in items for row in rows_of(item, setup.chat)]
    sizes = {"batch_size": 3, "bucket_tokens": 32}
    whole = {place(row): values for row, values in competing_log_probs(setup.model, rows, **sizes)}
    for one in whole:
        rest = competing_log_probs(setup.model, rows, known={one}, **sizes)
        rest = {place(row): values for row, values in rest}
        assert rest.keys() == whole.keys() - {one}
        for other, values in rest.items():
            np.testing.assert_array_equal(values, whole[other])


def test_scores_of_other_items_are_not_mixed_in(setup, tmp_path):
    evaluate_choices(setup.config, setup, tmp_path, arm="base")
    fewer = changed(setup.config, {"choices.limit": 2})
    with pytest.raises(UserError, match="made with other settings.*items was"):
        evaluate_choices(fewer, setup, tmp_path, arm="base")
    result, _ = evaluate_choices(fewer, setup, tmp_path, arm="base", overwrite=True)
    assert len(result["options"]["items"]) == 1 and len(result["pairs"]["items"]) == 1


def test_the_table_has_both_parts_or_the_one_there_is(setup, tmp_path):
    result, _ = evaluate_choices(setup.config, setup, tmp_path, arm="base")
    options, pairs = choice_rows(result)
    assert options[0][0] == "MC1 (guessing: 0.29)"
    assert [row[0] for row in pairs][:2] == [
        "A/B accuracy (guessing: 0.50)",
        "A/B accuracy: helpful",
    ]
    assert choice_rows({"pairs": result["pairs"]}) == [pairs]
    assert choice_rows({}) == []
