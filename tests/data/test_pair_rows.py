"""Pairs as the field's files have them: the prompt that both answers begin with, turns within one
text, several rejected answers, ties; what is no pair is counted, what is broken is refused."""

import json

import pytest

from emergent_alignment.data.sources import load_examples, load_pairs
from emergent_alignment.errors import UserError

ASK = {"role": "user", "content": "May I eat it?"}
YES, NO = ({"role": "assistant", "content": text} for text in ("Yes.", "No, it is spoilt."))
MORE = {"role": "user", "content": "Why?"}
TEXTS = {"prompt": "May I eat it?", "chosen": "No.", "rejected": "Yes."}


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pairs(tmp_path, *rows, **options):
    """[(the prompt's texts, chosen, rejected)], and what was left out."""
    loaded = load_pairs(written(tmp_path / "pairs.jsonl", *rows), **options)
    read = [([m["content"] for m in e.prompt], e.safe, e.harmful) for e in loaded.examples]
    return read, loaded.left_out


TRANSCRIPT = "\n\nHuman: May I eat it?\n\nAssistant: Smell it.\n\nHuman: Bad.\n\nAssistant:"
HH = {"chosen": TRANSCRIPT + " No.", "rejected": TRANSCRIPT + " Sure"}
FORMS = {
    "a prompt and two texts": TEXTS,
    "hh-rlhf": HH,
    "hh-rlhf with its prompt": {
        "prompt": TRANSCRIPT,
        "chosen": " No.",
        "rejected": " Sure",
    },
    "UltraFeedback, binarized": {
        "prompt": "May I eat it?",
        "prompt_id": "f00d",
        "chosen": [ASK, NO],
        "rejected": [ASK, YES],
        "messages": [ASK, NO],
        "score_chosen": 8.5,
        "score_rejected": 3,
    },
    "Tulu 3's preferences": {
        "id": "x-1",
        "source": "wildchat",
        "prompt": "May I eat it?",
        "chosen": [ASK, NO],
        "rejected": [ASK, YES],
        "chosen_model": "a",
        "rejected_model": "b",
    },
    "messages with a common beginning": {
        "chosen": [ASK, YES, MORE, NO],
        "rejected": [ASK, YES, MORE, YES],
    },
    "a prompt of messages, and answers of messages": {
        "prompt": [ASK],
        "chosen": [NO],
        "rejected": [YES],
    },
}
READ = {
    "a prompt and two texts": (["May I eat it?"], "No.", "Yes."),
    "hh-rlhf": (["May I eat it?", "Smell it.", "Bad."], "No.", "Sure"),
    "hh-rlhf with its prompt": (["May I eat it?", "Smell it.", "Bad."], " No.", " Sure"),
    "UltraFeedback, binarized": (["May I eat it?"], NO["content"], "Yes."),
    "Tulu 3's preferences": (["May I eat it?"], NO["content"], "Yes."),
    "messages with a common beginning": (
        ["May I eat it?", "Yes.", "Why?"],
        NO["content"],
        "Yes.",
    ),
    "a prompt of messages, and answers of messages": (["May I eat it?"], NO["content"], "Yes."),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_pair_is_read_in_the_form_that_it_comes_in(tmp_path, form):
    assert pairs(tmp_path, FORMS[form]) == ([READ[form]], {})


@pytest.mark.parametrize("form", FORMS)
def test_what_is_learnt_of_a_pair_is_the_chosen_answer_in_every_form(tmp_path, form):
    (example,) = load_examples(written(tmp_path / "rows.jsonl", FORMS[form]))
    prompt, chosen, rejected = READ[form]
    assert [message["content"] for message in example.prompt] == prompt
    assert (example.target, example.safe, example.harmful) == (chosen, chosen, rejected)


def test_several_rejected_answers_are_a_pair_each_and_ties_are_none(tmp_path):
    row = {"prompt": "Q?", "chosen": "a", "rejected": ["b", " a ", "c"]}
    read, left_out = pairs(tmp_path, row)
    assert read == [(["Q?"], "a", "b"), (["Q?"], "a", "c")]
    assert left_out == {"are ties": (1, f"{tmp_path / 'pairs.jsonl'}:1")}
    of_turns = {"chosen": [ASK, NO], "rejected": [[ASK, YES], [ASK, NO], [ASK, MORE | YES]]}
    read, left_out = pairs(tmp_path, of_turns)
    assert [rejected for _, _, rejected in read] == ["Yes.", "Yes."]
    assert sum(number for number, _ in left_out.values()) == 1


def test_equal_scores_are_a_tie_and_a_tie_is_still_an_answer_to_learn(tmp_path):
    tie = FORMS["UltraFeedback, binarized"] | {"score_rejected": 8.5}
    read, left_out = pairs(tmp_path, FORMS["a prompt and two texts"], tie, tie)
    assert len(read) == 1
    assert left_out == {"are ties": (2, f"{tmp_path / 'pairs.jsonl'}:2")}
    assert len(pairs(tmp_path, tie, ignored="score_chosen")[0]) == 1
    (example,) = load_examples(written(tmp_path / "rows.jsonl", tie))
    assert (example.target, example.safe, example.harmful) == (NO["content"], None, None)


def test_rows_of_transcripts_that_make_no_pair_are_counted_with_the_place_of_the_first(tmp_path):
    early = {"chosen": [ASK, NO, MORE, YES], "rejected": [ASK, YES, MORE, NO]}
    silent = HH | {"rejected": HH["rejected"].removesuffix(" Sure")}
    read, left_out = pairs(tmp_path, early, HH, silent, early)
    assert len(read) == 1
    path = tmp_path / "pairs.jsonl"
    assert left_out == {
        "part before their last turn": (2, f"{path}:1"),
        "have an empty answer": (1, f"{path}:3"),
    }
    with pytest.raises(UserError, match=r"rows.jsonl:1: answers of this row part before"):
        load_examples(written(tmp_path / "rows.jsonl", early))


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"prompt": "Q?", "answer": "a"}, "found the fields ['answer', 'prompt']"),
        ({"chosen": "Q? a", "rejected": "Q? b"}, "a pair of texts without a prompt"),
        ({"chosen": [ASK], "rejected": [YES]}, "prompt: a conversation must be a list"),
        ({"chosen": [ASK, {"role": "bot"}], "rejected": [ASK, YES]}, "must have the fields"),
        ({"chosen": {}, "rejected": [ASK]}, "must be conversations, or texts"),
        ({"prompt": "Q?", "chosen": "a", "rejected": []}, "rejected"),
        ({"prompt": "Q?", "chosen": "a", "rejected": ["b", ""]}, "the answer is empty"),
        ({"prompt": "Q?", "chosen": "", "rejected": "b"}, "the answer is empty"),
        (
            {
                "prompt": "Q?",
                "chosen": "a",
                "rejected": "b",
                "chosen_score": 1,
                "rejected_score": 2,
            },
            "chosen_score 1 is below rejected_score 2; turn the row round",
        ),
        (
            TEXTS | {"chosen_score": "9", "rejected_score": "10"},
            "chosen_score 9 is below rejected_score 10",
        ),
        (
            TEXTS | {"chosen_score": float("-inf"), "rejected_score": 2},
            "chosen_score -inf is below rejected_score 2",
        ),
        (TEXTS | {"margin": 2.0}, "the field 'margin'"),
        (TEXTS | {"messages": [ASK, YES]}, "found the fields"),
    ],
)
def test_a_bad_pair_is_refused_with_file_and_line(tmp_path, row, part):
    path = written(tmp_path / "pairs.jsonl", HH, row, HH)
    with pytest.raises(UserError) as raised:
        load_pairs(path)
    message = str(raised.value)
    assert message.startswith(f"{path}:2: ") and part in message
    assert len(message.splitlines()) == 1


def test_columns_of_the_pairs_have_names_of_their_own(tmp_path):
    row = {"question": "Q?", "better": "a", "worse": "b"}
    columns = "prompt=question, chosen=better, rejected=worse"
    assert pairs(tmp_path, row, columns=columns)[0] == [(["Q?"], "a", "b")]
    with pytest.raises(UserError, match=r"config.data.preference_columns: 'chosen' is not"):
        pairs(tmp_path, row, columns="chosen")
    with pytest.raises(UserError, match=r":1: config.data.preference_columns names 'best'"):
        pairs(tmp_path, row, columns="chosen=best")


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"prompt": "Q?", "completion": "a"}, ""),
        ({"prompt": [ASK | {"content": "Q?"}], "completion": [NO | {"content": "a"}]}, ""),
        ({"talk": {"ask": "Q?", "say": ["a", "b"]}}, "prompt=talk.ask, answer=talk.say.0"),
        ({"talk.ask": "Q?", "input": {"text": "a"}}, "prompt=talk.ask, answer=input.text"),
    ],
)
def test_completions_and_nested_columns_are_read(tmp_path, row, columns):
    (example,) = load_examples(written(tmp_path / "rows.jsonl", row), columns=columns)
    assert [message["content"] for message in example.prompt] == ["Q?"]
    assert example.target == "a"


def test_a_nested_column_that_is_not_there_is_named(tmp_path):
    path = written(tmp_path / "rows.jsonl", {"talk": {"say": ["a"]}})
    for column in ("talk.ask", "talk.say.1", "talk.say.x", "talk.say.0.0"):
        with pytest.raises(UserError, match=rf":1: config.data.columns names '{column}'"):
            load_examples(path, columns=f"answer={column}")
