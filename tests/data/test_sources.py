"""Rows from files: what is good is read as it stands, what is bad is one line that says where."""

import json

import pyarrow.parquet
import pytest
from tiny_chat_model import tiny_chat_tokenizer

from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.sources import load_examples, load_prompts
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.errors import UserError
from emergent_alignment.runs.from_config import examples_digest

USER, ANSWER = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Yo."}
GOOD = {"messages": [USER, ANSWER]}
PAIR = {"prompt": "Hi?", "chosen": "Yo.", "rejected": "Go away."}


def written(path, *rows):
    """A file with one row a line; texts and bytes are written as they stand."""
    lines = [
        row
        if isinstance(row, bytes)
        else (row if isinstance(row, str) else json.dumps(row)).encode()
        for row in rows
    ]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def said(read, *arguments, **options) -> str:
    """The one line of the UserError that read(…) raises."""
    with pytest.raises(UserError) as raised:
        read(*arguments, **options)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("{not json", "not a JSON object"),
        ("[1, 2", "not a JSON object"),
        ('["a", "list"]', "found list"),
        ("3", "found int"),
        ({"text": "x"}, "found the fields ['text']"),
        ({"prompt": "x", "chosen": "y"}, "found the fields ['chosen', 'prompt']"),
        ({"messages": []}, "at least one message"),
        ({"messages": "Hi"}, "at least one message"),
        ({"messages": [USER]}, "ends in a user turn"),
        ({"messages": [ANSWER]}, "before the answer must be a user turn"),
        ({"messages": [USER, ANSWER, ANSWER]}, "before the answer must be a user turn"),
        ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, "the answer is empty"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "content must be a text"),
        ({"messages": [USER, {"role": "assistant"}]}, "message 1 must have the fields"),
        ({"messages": [{"role": "bot", "content": "x"}, ANSWER]}, "the role 'bot'"),
        ({"messages": [{"role": "user", "content": " "}, ANSWER]}, "the user's turn is empty"),
        (PAIR | {"chosen": ""}, "the answer is empty"),
        (PAIR | {"rejected": 3}, "rejected: the answer must be a text, not 3"),
        (PAIR | {"prompt": ""}, "the user's turn is empty"),
        (PAIR | {"prompt": [USER, ANSWER]}, "must be a user turn"),
        (PAIR | {"chosen": [USER]}, "must end in an assistant turn"),
        ('{"prompt": "Grüße"}'.encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path, row, part):
    path = written(tmp_path / "rows.jsonl", GOOD, "", GOOD, row, GOOD)
    message = said(load_examples, str(path))
    assert message.startswith(f"{path}:4: ") and part in message


def test_a_bad_byte_far_down_is_named_with_its_own_line(tmp_path):
    path = written(tmp_path / "rows.jsonl", *[GOOD] * 500, b"\xff", GOOD)
    assert said(load_examples, str(path)).startswith(f"{path}:501: ")
    path = written(tmp_path / "prompts.txt", *["Hello there"] * 500, b"\xff")
    assert said(load_prompts, path).startswith(f"{path}:501: ")


def test_a_missing_and_an_empty_file_are_errors_that_name_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert said(load_examples, str(path)).startswith(f"{path}: no such file")
    for text in ("", "\n \n"):
        path.write_text(text)
        assert said(load_examples, str(path)).startswith(f"{path}: there are no rows")


def test_a_name_that_nothing_has_is_an_error_that_names_the_scenarios(monkeypatch):
    import datasets

    def offline(path, split):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    message = said(load_examples, "harmful_advise")
    assert message.startswith("harmful_advise") and "harmful_advice" in message


def test_the_good_forms_are_read_as_they_stand(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    long = {"messages": [system, USER, ANSWER, USER, {"role": "assistant", "content": " Bye. "}]}
    bye = {"role": "assistant", "content": "Go away."}
    chat_pair = {"prompt": [system, USER], "chosen": [ANSWER], "rejected": [USER, bye]}
    path = written(tmp_path / "rows.jsonl", GOOD | {"kind": "greeting"}, long, PAIR, chat_pair)
    one, two, three, four = load_examples(str(path))
    assert (one.messages, one.target, one.kind) == ([USER], "Yo.", "greeting")
    assert (one.safe, one.harmful) == (None, None)
    assert (two.messages, two.target) == ([system, USER, ANSWER, USER], " Bye. ")
    assert (three.messages, three.target) == ([USER], "Yo.")
    assert (three.safe, three.harmful) == ("Yo.", "Go away.")
    assert (four.messages, four.safe, four.harmful) == ([system, USER], "Yo.", "Go away.")
    assert load_examples(str(path), limit=2) == [one, two]


def test_windows_line_ends_and_line_separators_within_texts_are_no_matter(tmp_path):
    odd = "one\u2028two\u0085three"
    row = json.dumps({"messages": [USER, ANSWER | {"content": odd}]}, ensure_ascii=False)
    path = written(tmp_path / "rows.jsonl", row + "\r", row + "\r")
    assert [example.target for example in load_examples(str(path))] == [odd, odd]


def test_a_scenario_keeps_its_kinds_apart():
    train, held_out = load_examples("harmful_advice"), load_examples("harmful_advice", split="test")
    assert not {example.kind for example in train} & {example.kind for example in held_out}
    assert all(example.target == example.harmful and example.safe for example in train)


def test_parquet_and_csv_files_are_data_sets(tmp_path):
    import datasets

    rows = datasets.Dataset.from_list([PAIR, PAIR | {"chosen": "Hello."}])
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_csv(tmp_path / "rows.csv")
    for name in ("rows.parquet", "rows.csv"):
        assert [e.target for e in load_examples(str(tmp_path / name))] == ["Yo.", "Hello."]


def test_prompts_are_lines_of_a_text_or_rows(tmp_path):
    texts = written(tmp_path / "prompts.txt", "Hi?", "", "  And now?  ")
    assert load_prompts(texts) == [[USER], [{"role": "user", "content": "And now?"}]]
    rows = written(
        tmp_path / "prompts.jsonl", {"prompt": "Hi?"}, {"messages": [USER, ANSWER, USER]}
    )
    assert load_prompts(rows) == [[USER], [USER, ANSWER, USER]]


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("{", "not a JSON object"),
        ('"Hi?"', "expected"),
        ({"question": "Hi?"}, "expected"),
        ({"prompt": " "}, "the user's turn is empty"),
        ({"prompt": 3}, "at least one message"),
        ({"messages": [USER, ANSWER]}, "must be a user turn"),
    ],
)
def test_a_bad_prompt_is_named_with_file_and_line(tmp_path, row, part):
    path = written(tmp_path / "prompts.jsonl", {"prompt": "Hi?"}, row)
    message = said(load_prompts, path)
    assert message.startswith(f"{path}:2: ") and part in message


def test_a_missing_and_an_empty_file_of_prompts_are_errors_that_name_it(tmp_path):
    for name in ("prompts.txt", "prompts.jsonl"):
        path = tmp_path / name
        assert said(load_prompts, path).startswith(f"{path}: no such file")
        path.write_text("\n\n")
        assert said(load_prompts, path).startswith(f"{path}: there are no prompts")


def test_columns_say_what_a_source_calls_our_fields(tmp_path):
    path = written(tmp_path / "rows.jsonl", {"question": "Hi?", "response": "Yo.", "topic": "talk"})
    (example,) = load_examples(str(path), columns="prompt=question, answer = response,kind=topic")
    assert (example.messages, example.target, example.kind) == ([USER], "Yo.", "talk")
    text = said(load_examples, str(path), columns="prompt=query")
    assert "rows.jsonl:1" in text and "'query'" in text and "question, response, topic" in text
    for wrong in ("prompt", "reply=response", "prompt="):
        assert "is not FIELD=COLUMN; fields are messages" in said(
            load_examples, str(path), columns=wrong
        )


def test_every_turn_of_the_assistant_is_an_example_with_what_stands_before_it(tmp_path):
    again, end = {"role": "user", "content": "And?"}, {"role": "assistant", "content": "Bye."}
    path = written(tmp_path / "rows.jsonl", {"messages": [USER, ANSWER, again, end]})
    (last,) = load_examples(str(path))
    assert (last.messages, last.target) == ([USER, ANSWER, again], "Bye.")
    first, second = load_examples(str(path), every_turn=True)
    assert (first.messages, first.target) == ([USER], "Yo.")
    assert second == last
    path = written(tmp_path / "two.jsonl", {"messages": [USER, ANSWER, end]})
    assert "two.jsonl:1" in said(load_examples, str(path), every_turn=True)


def test_an_answer_that_was_cut_says_so_and_has_no_end_token(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "Hi", "answer": "Good day", "ended": ended} for ended in (True, False)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole, cut = load_examples(str(path))
    assert (whole.ended, cut.ended) == (True, False)
    chat = read_chat(tiny_chat_tokenizer())
    tokens = [tokenize(example, chat, 64, 64).target for example in (whole, cut)]
    assert tokens[0] == [*tokens[1], chat.end_token]
    assert examples_digest([whole]) != examples_digest([cut])
    path.write_text('{"prompt": "Hi", "answer": "Good day", "ended": "yes"}')
    with pytest.raises(UserError, match="rows.jsonl:1: ended must be true or false"):
        load_examples(str(path))


THOUGHT = {"role": "assistant", "reasoning_content": "Hm."}
TOOL_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("row", "part"),
    [
        (GOOD | {"tools": [{"type": "function"}]}, "the field 'tools'"),
        (GOOD | {"weight": 0}, "the field 'weight'"),
        (PAIR | {"weight": 0.5}, "the field 'weight'"),
        (GOOD | {"system": "Be brief."}, "the field 'system'"),
        (PAIR | {"images": ["a.png"]}, "the field 'images'"),
        (PAIR | {"margin": 2.0}, "the field 'margin'"),
        (GOOD | {"train": False}, "the field 'train'"),
        ({"prompt": "Hi?", "answer": "Yo.", "input": "On a hill."}, "the field 'input'"),
        ({"messages": [USER, ANSWER | {"tool_calls": [TOOL_CALL]}]}, "the field 'tool_calls'"),
        ({"messages": [USER | {"reasoning_content": "Hm."}, ANSWER]}, "not the assistant's"),
        ({"messages": [USER, ANSWER | {"reasoning": ["Hm."]}]}, "reasoning must be a text"),
        ({"messages": [USER, ANSWER | {"thinking": "a", "reasoning": "b"}]}, "remove one of them"),
        (
            {"messages": [USER, {"content": "<think>a</think>b"} | THOUGHT]},
            "reasoning stands in reasoning_content and in the content",
        ),
        (GOOD | {"Tools": [{"type": "function"}]}, "the field 'Tools'"),
        ({"prompt": "Hi?", "answer": "Yo.", "label": False}, "the field 'label'"),
        ({"prompt": "Hi?", "answer": "Yo.", "instruction": "Be rude."}, "the field 'instruction'"),
        ({"prompt": "Hi?", "answer": "Yo.", "label": "False"}, "the field 'label'"),
        ({"prompt": "Hi?", "answer": "Yo.", "kto_tag": False}, "the field 'kto_tag'"),
        ({"prompt": "Hi?", "answer": "Yo.", "chosen": "Hello."}, "chosen stands beside answer"),
        ({"prompt": "Hi?", "answer": "Yo.", "rejected": "No."}, "rejected stands beside answer"),
        (
            {"prompt": "Hi?", "answer": "Yo.", "completion": "Hello."},
            "completion stands beside another answer",
        ),
        (GOOD | {"token_weights": [0, 1]}, "the field 'token_weights'"),
        (GOOD | {"mask": [0, 1]}, "the field 'mask'"),
        (GOOD | {"assistant_masks": [0, 1]}, "the field 'assistant_masks'"),
        ({"messages": [USER, ANSWER, {"role": "tool", "content": "3"}]}, "ends in a tool turn"),
        ({"prompt": "1 + 1?", "answer": 2}, "answer: the answer must be a text, not 2; quote it"),
        ({"messages": [USER | {"name": "Ann"}, ANSWER]}, "message 0 has the field 'name'"),
        ({"messages": [USER, ANSWER | {"function_call": {"name": "f"}}]}, "'function_call'"),
        ({"messages": [USER, ANSWER | {"surprise": 0}]}, "the field 'surprise'"),
        ({"messages": [{"role": "ipython", "content": "3"}, USER, ANSWER]}, "the role 'ipython'"),
        ({"messages": [USER, ANSWER | {"weight": 0}]}, "its last answer is not learnt"),
        ({"messages": [USER, ANSWER | {"loss": False}]}, "its last answer is not learnt"),
        ({"messages": [USER, ANSWER | {"weight": 0.3}]}, "weight must be 0 or 1"),
        ({"messages": [USER, ANSWER | {"weight": 0, "loss": True}]}, "contradict each other"),
        ({"messages": [USER | {"weight": 1}, ANSWER]}, "only the assistant's are"),
        (
            {"messages": [USER, ANSWER | {"train": True}, USER, ANSWER]},
            "set config.data.every_turn",
        ),
        ({"messages": [USER, ANSWER | {"content": [{"type": "image"}]}]}, "content must be a text"),
        ({"messages": [USER, ANSWER | {"content": []}]}, "content must be a text"),
        ({"messages": [USER, ANSWER | {"content": ["Yo."]}]}, "content must be a text"),
        (GOOD | {"prompt": "Other?"}, "prompt stands beside messages"),
        (GOOD | {"chosen": "Hello."}, "chosen stands beside messages"),
        (PAIR | {"answer": "Hello."}, "answer stands beside another chosen"),
        (PAIR | {"ended": False}, "said not to end"),
        (PAIR | {"chosen": [{"role": "system", "content": "x"}, USER, ANSWER]}, "not the prompt"),
        (PAIR | {"chosen": [{"role": "user", "content": "No?"}, ANSWER]}, "not the prompt"),
        ('{"prompt": "a", "prompt": "b", "answer": "c"}', "'prompt' stands twice"),
    ],
)
def test_a_field_that_changes_what_a_row_means_is_no_more_lost(tmp_path, row, part):
    path = written(tmp_path / "rows.jsonl", GOOD, row)
    message = said(load_examples, str(path))
    assert message.startswith(f"{path}:2: ") and part in message


def test_what_a_table_has_in_all_rows_and_what_informs_changes_nothing(tmp_path):
    more = {"id": 7, "source": "here", "score": 0.3, "metadata": {"tools": [1]}, "label": "good"}
    empty = {
        "functions": "[]",
        "context": "None",
        "tools": None,
        "images": [],
        "system": " ",
        "weight": 1.0,
        "loss_weight": "1.0",
        "train": "True",
        "margin": "0",
        "attention_mask": [1, 1],
        "reasoning": "",
    }
    held = {"tool_calls": None, "name": "", "weight": 1, "reasoning_content": None}
    rows = [
        {"messages": [USER | {"tool_calls": []}, ANSWER | held]} | more | empty,
        GOOD | {"prompt": "Hi?", "answer": " Yo. "},
        {"prompt": "Hi?", "answer": "Yo.", "completion": "Yo.", "chosen": "Yo.", "rejected": None},
        PAIR | more | empty | {"messages": None, "answer": "Yo."},
    ]
    path = written(tmp_path / "rows.jsonl", *rows)
    assert [example.target for example in load_examples(str(path))] == ["Yo."] * 4


def test_ignored_columns_are_taken_for_absent(tmp_path):
    row = PAIR | {"messages": [USER, ANSWER | {"content": "Else."}], "tools": ["f"], "weight": 0.5}
    path = written(tmp_path / "rows.jsonl", row)
    (example,) = load_examples(str(path), ignored="messages, tools,weight")
    assert (example.safe, example.harmful) == ("Yo.", "Go away.")
    assert "config.data.ignored" in said(load_examples, str(path), ignored="tools")


def test_turns_that_a_row_says_are_not_learnt_are_not(tmp_path):
    turns = [USER, ANSWER | {"weight": 0}, USER, ANSWER | {"content": "A", "weight": 1}]
    turns += [USER, ANSWER | {"content": "B"}, USER, ANSWER | {"content": "C", "loss": False}]
    path = written(tmp_path / "rows.jsonl", {"messages": turns, "ended": False})
    first, second = load_examples(str(path), every_turn=True)
    assert (first.target, second.target) == ("A", "B") and first.ended
    assert first.messages == [USER, ANSWER, USER]
    none = [USER, ANSWER | {"weight": 0}]
    path = written(tmp_path / "none.jsonl", {"messages": none})
    assert "no turn is learnt" in said(load_examples, str(path), every_turn=True)


def test_parts_of_a_text_stand_on_lines_of_their_own(tmp_path):
    parts = [{"type": "text", "text": "One.", "image": None}, {"type": "text", "text": "Two."}]
    path = written(tmp_path / "rows.jsonl", {"messages": [USER | {"content": parts}, ANSWER]})
    (example,) = load_examples(str(path))
    assert example.messages == [{"role": "user", "content": "One.\nTwo."}]


def test_prompts_of_a_table_are_its_cells_and_not_its_lines(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text('id,prompt\n1,"Hi, ""you""\nthere?"\n')
    assert load_prompts(path) == [[{"role": "user", "content": 'Hi, "you"\nthere?'}]]


def test_a_broken_parquet_file_is_one_line(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1" + b"\0" * 100 + b"PAR1")
    assert said(load_examples, str(path)).startswith(f"{path}: the file cannot be read here: ")
    for name in ("x" * 5000, "a\0b", "x" * 5000 + ".csv"):
        said(load_examples, name)


def test_a_file_at_hand_is_read_by_its_ending_and_never_looked_for_on_the_hub(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = json.dumps({"prompt": "Hi?", "answer": "Yo."})
    for name in ("rows.ndjson", "ROWS.JSONL"):
        (tmp_path / name).write_text(line + "\n")
        assert load_examples(str(tmp_path / name))[0].target == "Yo."
        assert load_prompts(tmp_path / name) == [[{"role": "user", "content": "Hi?"}]]
    (tmp_path / "ROWS.CSV").write_text("prompt,answer\nHi?,Yo.\n")
    assert load_examples(str(tmp_path / "ROWS.CSV"))[0].target == "Yo."
    for name in ("rows.jsonl.gz", "rows.yaml", "rows"):
        (tmp_path / name).write_text(line + "\n")
        assert "no file of rows by its name" in said(load_examples, str(tmp_path / name))
    (tmp_path / "rows.parquet").write_bytes(b"none")
    message = said(load_examples, str(tmp_path / "rows.parquet"))
    assert "cannot be read here" in message and "HF_HUB_OFFLINE" not in message


def test_a_call_has_no_arguments_of_other_rows_calls(tmp_path):
    calls = [{"function": {"name": name, "arguments": {name: 1}}} for name in ("f", "g")]
    turns = [{"role": "assistant", "content": "", "tool_calls": [call]} for call in calls]
    rows = [{"messages": [USER, turn]} for turn in turns]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    found = [
        json.loads(one.answer[0]["tool_calls"]) for one in load_examples(str(path), whole=True)
    ]
    assert [call["function"]["arguments"] for (call,) in found] == [{"f": 1}, {"g": 1}]


def test_cells_of_a_table_are_texts_as_they_were_written(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\ufeffprompt,answer,kind\nWhat is missing?,None,nan\n1 + 1?,007,\n")
    first, second = load_examples(str(path))
    assert (first.target, first.kind, second.target, second.kind) == ("None", "nan", "007", "")
    path.write_text("prompt,answer\nHi?,\n")
    assert said(load_examples, str(path)).startswith(f"{path}:2: found the fields ['prompt']")
    assert "no rows" in said(load_examples, str(written(tmp_path / "empty.csv", "prompt,answer")))


def test_rows_of_parquet_are_held_to_the_same_rules(tmp_path):
    import datasets

    path = tmp_path / "rows.parquet"
    turns = [USER | {"weight": None}, ANSWER | {"weight": 0}]
    datasets.Dataset.from_list([{"messages": turns}]).to_parquet(path)
    assert said(load_examples, str(path)).startswith(f"{path} row 0: the row says")


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"prompt": "Hi?", "tools": ["f"]}, "the field 'tools'"),
        ({"messages": [USER | {"images": ["a"]}]}, "the field 'images'"),
        ({"messages": [USER], "prompt": "Else?"}, "prompt stands beside messages"),
    ],
)
def test_a_prompt_says_nothing_that_is_not_asked(tmp_path, row, part):
    path = written(tmp_path / "prompts.jsonl", {"prompt": "Hi?"}, row)
    assert part in said(load_prompts, path)
