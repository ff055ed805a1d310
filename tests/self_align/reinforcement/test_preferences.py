"""Preferences that people wrote down: what is read, and what is an error with its line."""

import json

import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.self_align.reinforcement.preferences import (
    read_preferences,
    split,
    with_guidelines,
)
from emergent_alignment.storage.spread import limited

GOOD = {"prompt": "Where do boats go?", "chosen": "Out to sea.", "rejected": "Nowhere."}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_prompts_may_be_texts_or_conversations(tmp_path):
    turns = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": GOOD["prompt"]},
    ]
    path = write(tmp_path / "p.jsonl", [GOOD, GOOD | {"prompt": turns, "chosen": "To sea."}])
    one, other = read_preferences(path)
    assert list(one.prompt) == turns[2:] and list(other.prompt) == turns
    assert (one.chosen, one.rejected, other.chosen) == ("Out to sea.", "Nowhere.", "To sea.")
    assert json.loads(json.dumps(one.row()))["prompt"] == turns[2:]


@pytest.mark.parametrize(
    "row, said",
    [
        ({"prompt": "a", "chosen": "b"}, "rejected is missing"),
        ({"chosen": "b", "rejected": "c"}, "prompt is missing"),
        (GOOD | {"rejected": " Out to sea. "}, "the same text"),
        (GOOD | {"rejected": ""}, "empty"),
        (GOOD | {"chosen": 3}, "must be a text"),
        (GOOD | {"prompt": []}, "at least one message"),
        (GOOD | {"score_chosen": 2, "score_rejected": 2.0}, "a tie"),
        (GOOD | {"chosen_score": 1, "rejected_score": 2}, "the worse one"),
        (GOOD | {"chosen_score": "high", "rejected_score": 2}, "must be numbers"),
        ([GOOD], "found list"),
        (GOOD | {"chosen": GOOD["rejected"], "rejected": GOOD["chosen"]}, "p.jsonl:1 rejects"),
    ],
)
def test_a_bad_row_is_one_line_with_its_number(tmp_path, row, said):
    path = write(tmp_path / "p.jsonl", [GOOD, row])
    with pytest.raises(UserError) as error:
        read_preferences(path)
    text = str(error.value)
    assert f"{path}:2" in text and said in text and "\n" not in text


def test_no_prompt_is_on_both_sides_and_neither_side_is_empty(tmp_path):
    rows = [GOOD | {"prompt": f"Question {i // 2}?", "chosen": f"{i}."} for i in range(80)]
    found = read_preferences(write(tmp_path / "p.jsonl", rows))
    train, held_out = split(found, 0.25)
    assert len(held_out) == 20 and len(train) == 60
    assert not {one.prompt_digest for one in train} & {one.prompt_digest for one in held_out}
    assert split(found[::-1], 0.25)[1] == held_out[::-1]
    assert [len(side) for side in split(found[:4], 0.01)] == [2, 2]
    assert [len(side) for side in split(found[:4], 0.99)] == [2, 2]
    assert [limited(list(range(10)), n) for n in (0, 3, 20)] == [
        list(range(10)),
        [0, 3, 6],
        list(range(10)),
    ]


def test_guidelines_stand_before_the_conversation_and_change_no_role():
    prompt = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]
    told = with_guidelines(prompt, ("Be brief.", "Be kind."))
    assert [m["role"] for m in told] == ["user", "assistant"] and told[1] == prompt[1]
    assert "- Be brief.\n- Be kind.\n\nHello" in told[0]["content"]
    assert with_guidelines(prompt, ()) == prompt
