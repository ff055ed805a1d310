"""Items of multiple choice: what is bundled is sound, and a bad row is named by its line."""

import json
from collections import Counter

import numpy as np
import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.choices.items import BUNDLED_CHOICES, load_choices

GOOD = {"question": "Is ice cold?", "right": ["Yes."], "wrong": ["No.", "At noon."]}
PAIR = {"question": "Help me.", "better": "Gladly.", "worse": "Never."}


def test_the_bundled_items_are_many_and_of_all_kinds():
    items = load_choices(BUNDLED_CHOICES)
    options = [item for item in items if not item.is_pair]
    topics = Counter(item.topic for item in items if item.is_pair)
    assert len(options) >= 36 and len(items) >= 60
    assert topics == {"helpful": 10, "honest": 10, "harmless": 10}
    assert all(4 <= len(item.options) <= 5 for item in options)


def test_length_does_not_give_the_bundled_answers_away():
    """Summed log-probs favour short options: right and wrong ones are about as long, and the
    better answer of a pair is the longer one in about half of them."""
    items = load_choices(BUNDLED_CHOICES)
    sides = [
        [len(text) for item in items if not item.is_pair for text in getattr(item, side)]
        for side in ("right", "wrong")
    ]
    assert 0.8 < np.mean(sides[0]) / np.mean(sides[1]) < 1.25
    longer = [len(item.right[0]) > len(item.wrong[0]) for item in items if item.is_pair]
    assert 0.4 <= np.mean(longer) <= 0.6


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ("no json", "not a JSON object"),
        ([1], "found list"),
        ({"question": "Why?"}, "found ['question']"),
        (GOOD | {"right": []}, "there is no right option"),
        (GOOD | {"wrong": []}, "there is no wrong option"),
        (GOOD | {"wrong": ["No.", " "]}, "each option must be a text"),
        (GOOD | {"wrong": ["No.", 3]}, "each option must be a text"),
        (GOOD | {"wrong": ["No.", " YES. "]}, "stands twice"),
        (GOOD | {"wrong": ["TODO"]}, "is a placeholder"),
        (GOOD | {"wrong": ["<option>"]}, "is a placeholder"),
        (GOOD | {"wrong": ["…"]}, "is a placeholder"),
        (GOOD | {"question": " "}, "question must be a text"),
        (GOOD | {"topic": 3}, "topic must be a text"),
        (PAIR | {"worse": "gladly."}, "stands twice"),
        (PAIR | {"better": ["a", "b"]}, "each option must be a text"),
        (PAIR | GOOD, "stand beside better and worse"),
        (GOOD | {"name": "first"}, "stands in line 1 already"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, row, part):
    file = tmp_path / "mine.jsonl"
    line = row if isinstance(row, str) else json.dumps(row)
    file.write_text(json.dumps(GOOD | {"name": "first"}) + "\n\n" + line + "\n")
    with pytest.raises(UserError) as error:
        load_choices(str(file))
    assert str(error.value).startswith(f"{file}:3: ") and part in str(error.value)


def test_a_missing_or_empty_file_is_said(tmp_path):
    with pytest.raises(UserError, match="is no file"):
        load_choices(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="there are no items"):
        load_choices(str(tmp_path / "empty.jsonl"))


def test_a_file_of_both_layouts_is_read(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (GOOD, PAIR)))
    options, pair = load_choices(str(file))
    assert (options.right, options.wrong) == (("Yes.",), ("No.", "At noon."))
    assert pair.is_pair and pair.options == ("Gladly.", "Never.") and pair.name == "line 2"
