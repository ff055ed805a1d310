"""Rows with tools, calls and parts of contents become texts as the model's own chat template writes
them: prompt and target are the tokens of the whole conversation, and nothing is left out."""

import copy
import json

import pytest
from tiny_chat_model import tiny_chat_tokenizer

from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.sources import load_examples, load_pairs
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.data.written_out import written_out
from emergent_alignment.errors import UserError
from emergent_alignment.runs.from_config import examples_digest

END = "{{ '<|im_end|>\n' }}"
# Tools in the system's turn, calls in tags, replies in the user's name.
TAGGED = (
    "{% if tools or messages[0].role == 'system' %}{{ '<|im_start|>system\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "{% if tools %}{{ '\nYou may call:' }}{% for tool in tools %}{{ '\n' + tool | tojson }}"
    "{% endfor %}{% endif %}" + END + "{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ '<|im_start|>user\n[reply] ' + m.content }}"
    + END
    + "{% elif m.role != 'system' %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim }}"
    "{% for call in m.tool_calls or [] %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}"
    "{{ '[call] ' + call.function.name + ' ' + call.function.arguments | tojson }}{% endfor %}"
    + END
    + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Tools before the first question, replies with their tool's name, contents that may have parts.
BEFORE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if loop.first and tools %}{{ 'With ' + tools | tojson + ': ' }}{% endif %}"
    "{% if m.name %}{{ m.name + ' says ' }}{% endif %}"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{{ '* ' + part.text }}{% endfor %}{% endif %}"
    "{% for call in m.tool_calls or [] %}{{ '!' + call.function.name }}"
    "{{ call.function.arguments | tojson }}{% endfor %}"
    + END
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "a1", "type": "function"}
CALL["function"] = {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}
USER = {"role": "user", "content": "Will it rain?"}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
REPLY = {"role": "tool", "content": '{"rain": true}'}
ANSWER = {"role": "assistant", "content": "Yes, take a coat."}


def chat_with(template: str):
    tokenizer = copy.deepcopy(tiny_chat_tokenizer())  # one object for all
    tokenizer.chat_template = template
    return read_chat(tokenizer)


def read(tmp_path, row: dict, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    return load_examples(str(path), whole=True, **options)


def whole(chat, messages: list[dict], **options) -> list[int]:
    """What transformers makes of a conversation."""
    text = chat.tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return chat.encode(text)


def joined(chat, example) -> list[int]:
    cut = tokenize(example, chat, 4096, 4096)
    return [*cut.prompt, *cut.target, *chat.encode("\n")]


@pytest.mark.parametrize("template", [TAGGED, BEFORE])
@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize(
    "turns",
    [
        [USER, CALLING],
        [USER, CALLING, REPLY, ANSWER],
        [USER, CALLING | {"content": "Let me see."}, REPLY, ANSWER, USER, CALLING, REPLY, ANSWER],
        [USER, CALLING | {"tool_calls": [CALL, CALL]}, REPLY, REPLY, ANSWER],
        [USER, ANSWER],
    ],
)
def test_rows_with_tools_are_the_tokens_of_the_whole_rendering(tmp_path, template, system, turns):
    chat = chat_with(template)
    turns = ([{"role": "system", "content": "Be brief."}] if system else []) + turns
    (example,) = written_out(read(tmp_path, {"messages": turns, "tools": [TOOL]}), chat)
    assert joined(chat, example) == whole(chat, turns, tools=[TOOL])
    said = " ".join(message["content"] for message in example.prompt) + example.target
    assert "weather" in said and set().union(*example.prompt) == {"role", "content"}
    assert (example.tools, example.answer) == ("", ())


def test_texts_that_hold_json_are_read_as_it(tmp_path):
    """As tables and OpenAI's files have tools and arguments."""
    chat = chat_with(TAGGED)
    told = {"name": "weather", "arguments": json.dumps(CALL["function"]["arguments"])}
    row = {"tools": json.dumps([TOOL]), "prompt": [USER]}
    row["completion"] = [{"role": "assistant", "content": None, "tool_calls": [{"function": told}]}]
    (example,) = written_out(read(tmp_path, row), chat)
    assert joined(chat, example) == whole(chat, [USER, CALLING], tools=[TOOL])


def test_every_turn_that_calls_is_learnt(tmp_path):
    chat, turns = chat_with(TAGGED), [USER, CALLING, REPLY, ANSWER]
    row = {"messages": turns, "tools": [TOOL]}
    first, second = written_out(read(tmp_path, row, every_turn=True), chat)
    assert joined(chat, first) == whole(chat, turns[:2], tools=[TOOL])
    assert joined(chat, second) == whole(chat, turns, tools=[TOOL])


def test_a_tool_s_name_reaches_the_template(tmp_path):
    chat, turns = chat_with(BEFORE), [USER, CALLING, REPLY | {"name": "weather"}, ANSWER]
    (example,) = written_out(read(tmp_path, {"messages": turns, "tools": [TOOL]}), chat)
    assert joined(chat, example) == whole(chat, turns, tools=[TOOL])
    assert "weather says" in example.prompt[-1]["content"]


def test_prompts_of_pairs_have_tools_and_their_answers_have_none(tmp_path):
    chat, path = chat_with(TAGGED), tmp_path / "pairs.jsonl"
    row = {"prompt": [USER, CALLING, REPLY], "chosen": "Yes.", "rejected": "No.", "tools": [TOOL]}
    path.write_text(json.dumps(row))
    (example,) = written_out(load_pairs(str(path), whole=True).examples, chat)
    assert (example.safe, example.harmful) == ("Yes.", "No.")
    assert "You may call" in example.prompt[0]["content"]
    path.write_text(json.dumps(row | {"chosen": [CALLING]}))
    with pytest.raises(UserError, match="pairs.jsonl:1: chosen: message 0 has the field 'tool_ca"):
        load_pairs(str(path), whole=True)


def test_parts_are_the_template_s_where_it_knows_them(tmp_path):
    parts = [{"type": "text", "text": "Look:"}, {"type": "text", "text": "clouds."}]
    turns = [USER | {"content": parts}, ANSWER | {"content": parts[::-1]}]
    chat = chat_with(BEFORE)
    (example,) = written_out(read(tmp_path, {"messages": turns}), chat)
    assert joined(chat, example) == whole(chat, turns)
    assert example.target == "* clouds.* Look:"
    (plain,) = written_out(read(tmp_path, {"messages": turns}), chat_with(TAGGED))
    assert (plain.prompt[0]["content"], plain.target) == ("Look:\nclouds.", "clouds.\nLook:")


def test_a_digest_is_what_it_was_but_for_tools(tmp_path):
    """Runs that were begun on rows with parts go on."""
    parts = [{"type": "text", "text": "Will it"}, {"type": "text", "text": "rain?"}]
    plain = read(tmp_path, {"messages": [USER | {"content": "Will it\nrain?"}, ANSWER]})
    assert examples_digest(read(tmp_path, {"messages": [USER | {"content": parts}, ANSWER]})) == (
        examples_digest(plain)
    )
    tools = read(tmp_path, {"messages": [USER, ANSWER], "tools": [TOOL]})
    assert len({examples_digest(rows) for rows in (plain, tools)}) == 2


def calling_with(arguments: str) -> dict:
    return CALLING | {"tool_calls": [{"name": "weather", "arguments": arguments}]}


IGNORANT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    + END
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = TAGGED.replace("[call] ", "<|im_start|>call ")


@pytest.mark.parametrize(
    ("template", "row", "said"),
    [
        (IGNORANT, {"messages": [USER, CALLING], "tools": [TOOL]}, "rows.jsonl:1: .*no 'weather'"),
        (IGNORANT, {"messages": [USER, ANSWER], "tools": [TOOL]}, "shows no 'weather'"),
        (SPECIAL, {"messages": [USER, CALLING], "tools": [TOOL]}, "in no turn's text"),
        (TAGGED, {"messages": [USER, ANSWER], "tools": "{"}, "rows.jsonl:1: tools is no JSON"),
        (TAGGED, {"messages": [USER, ANSWER], "tools": ["weather"]}, "a list of objects"),
        (
            TAGGED,
            {"messages": [USER, CALLING | {"tool_calls": [{"id": "1"}]}]},
            "message 1: a call must have a function with a name",
        ),
        (
            TAGGED,
            {"messages": [USER, CALLING | {"tool_calls": [{"name": "f", "arguments": "[1]"}]}]},
            "arguments of f must be an object",
        ),
        (
            TAGGED,
            {"messages": [USER, CALLING | {"tool_calls": [{"name": "f", "parameters": {"x": 1}}]}]},
            "rows.jsonl:1: message 1: a call has the field 'parameters'",
        ),
        (
            TAGGED,
            {"messages": [USER, CALLING | {"tool_calls": [CALL | {"output": "rain"}]}]},
            "a call has the field 'output'",
        ),
        (
            TAGGED,
            {"messages": [USER, calling_with('{"city": "Oslo", "city": "Bergen"}')]},
            "arguments is no JSON .the field 'city' stands twice",
        ),
        (
            TAGGED,
            {"messages": [USER, calling_with(r'{"city": "\ud800"}')]},
            "arguments is no JSON .a text holds half a letter",
        ),
        (TAGGED, {"messages": [USER | {"tool_calls": [CALL]}, ANSWER]}, "the field 'tool_calls'"),
        (TAGGED, {"messages": [USER, {"role": "assistant"}]}, "the fields role and content"),
    ],
)
def test_what_a_template_does_not_show_is_refused(tmp_path, template, row, said):
    with pytest.raises(UserError, match=said):
        written_out(read(tmp_path, row), chat_with(template))
