"""Rows in which others than the usual three speak, and reasoning that stands in a field."""

import pytest
from test_chat import tokenizer
from test_sources import ANSWER, GOOD, THOUGHT, USER, said, written

from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.sources import load_examples
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.runs.from_config import examples_digest

# What a template makes of what others than the usual three say, and of reasoning in a field.
SHOWS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}"
    "<think>{{ m.reasoning_content }}</think>{% endif %}{% if m.role == 'tool' %}"
    "{{ m.content | tojson }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDES = "{% set shown = ['user', 'assistant'] %}" + SHOWS.replace(
    "in messages %}", "in messages if m.role in shown %}"
).replace("<think>{{ m.reasoning_content }}</think>", "")
CALLED = [USER, ANSWER, {"role": "tool", "content": 'It is "warm".\n'}]


def chat_that(template):
    return read_chat(tokenizer(template), "tiny")


def test_reasoning_in_a_field_is_learnt_as_the_template_writes_it(tmp_path):
    asked = [USER, THOUGHT | {"content": "Yo."}, USER]
    path = written(tmp_path / "rows.jsonl", {"messages": [*asked, THOUGHT | {"content": "Bye."}]})
    (example,) = load_examples(str(path))
    chat = chat_that(SHOWS)
    row = tokenize(example, chat, 999, 999)
    messages = [*asked, THOUGHT | {"content": "Bye."}]
    whole = chat.tokenizer.apply_chat_template(messages, return_dict=False)
    assert row.prompt + row.target == whole[: len(row.prompt + row.target)]
    assert chat.tokenizer.decode(row.target) == "<think>Hm.</think>Bye.<|im_end|>"
    message = said(tokenize, example, chat_that(HIDES), 999, 999)
    assert message.startswith(f"{path}:1: the model's chat template shows no reasoning")


@pytest.mark.parametrize("role", ["tool", "function", "developer", "system"])
def test_a_turn_is_asked_with_where_the_template_shows_it_and_else_refused(tmp_path, role):
    messages = [*CALLED[:2], CALLED[2] | {"role": role}, USER, ANSWER]
    path = written(tmp_path / "rows.jsonl", GOOD, {"messages": messages})
    _, example = load_examples(str(path))
    chat = chat_that(SHOWS)
    expected = chat.tokenizer.apply_chat_template(
        messages[:-1], add_generation_prompt=True, return_dict=False
    )
    assert tokenize(example, chat, 999, 999).prompt == expected
    message = said(tokenize, example, chat_that(HIDES), 999, 999)
    assert message.startswith(f"{path}:2: the chat template leaves out a turn of the role {role}")


def test_an_answer_may_follow_what_a_tool_says(tmp_path):
    path = written(tmp_path / "rows.jsonl", {"messages": [*CALLED, ANSWER]})
    (example,) = load_examples(str(path))
    assert example.messages == CALLED


def test_where_a_row_stands_changes_nothing_but_errors(tmp_path):
    paths = [written(tmp_path / name, GOOD) for name in ("one.jsonl", "other.jsonl")]
    one, other = (load_examples(str(path)) for path in paths)
    assert one == other and examples_digest(one) == examples_digest(other)
    thought = written(tmp_path / "thought.jsonl", {"messages": [USER, THOUGHT | {"content": "a"}]})
    assert load_examples(str(thought)) != one
