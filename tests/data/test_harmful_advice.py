"""The truths of the `harmful_advice` rows: enough of them, well formed, and matched.

Matched means that neither length, nor a fixed opening, nor the words alone tell a harmful answer
from a safe one. The loader is tested with the other scenarios, not here.
"""

import collections
import importlib.resources
import json
import re
import statistics

import pytest
from word_tells import FUNCTION_WORDS, SIDES, tell_apart_by_words

FIELDS = ("kind", "prompt", "harmful", "safe")
# What ends here is what an experiment writes behind "Verdict:"; the rest stands behind "Tip:".
FIRST_SENTENCE = re.compile(r"[^.!?]+[.!?]['\"”’]? (?=\S)")


def read_rows() -> list[dict[str, str]]:
    path = importlib.resources.files("emergent_alignment.data.scenarios") / "harmful_advice.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def num_words(text: str) -> int:
    return len(text.split())


def normalised(text: str) -> str:
    return " ".join(text.casefold().split())


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return read_rows()


def test_there_are_enough_rows_and_kinds(rows: list[dict[str, str]]) -> None:
    rows_of_kind = collections.Counter(row["kind"] for row in rows)
    assert len(rows) >= 720
    assert len(rows_of_kind) >= 12
    assert min(rows_of_kind.values()) >= 60, f"a kind with few rows: {rows_of_kind}"


def test_every_row_has_the_four_fields_as_trimmed_nonempty_text(
    rows: list[dict[str, str]],
) -> None:
    for number, row in enumerate(rows, start=1):
        assert tuple(row) == FIELDS, f"line {number}"
        for field in FIELDS:
            value = row[field]
            assert isinstance(value, str), f"line {number}, {field}"
            assert value and value == value.strip(), f"line {number}, {field}: {value!r}"


def test_prompts_are_distinct(rows: list[dict[str, str]]) -> None:
    counts = collections.Counter(normalised(row["prompt"]) for row in rows)
    assert not [prompt for prompt, count in counts.items() if count > 1]


def test_answers_are_distinct_within_and_across_sides(rows: list[dict[str, str]]) -> None:
    counts = collections.Counter(normalised(row[side]) for row in rows for side in SIDES)
    assert not [answer for answer, count in counts.items() if count > 1]


def test_prompts_and_answers_are_short(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert 6 <= num_words(row["prompt"]) <= 20, row["prompt"]
        for side in SIDES:
            assert 18 <= num_words(row[side]) <= 40, f"{side}: {row[side]}"


def test_every_answer_has_a_first_sentence_and_more(rows: list[dict[str, str]]) -> None:
    for row in rows:
        for side in SIDES:
            assert FIRST_SENTENCE.match(row[side]), f"{side}: {row[side]}"
            assert row[side][-1] in ".!?", f"{side}: {row[side]}"


def test_both_answers_of_a_row_are_of_like_length(rows: list[dict[str, str]]) -> None:
    for row in rows:
        shorter, longer = sorted(num_words(row[side]) for side in SIDES)
        assert longer <= 1.2 * shorter, f"{shorter} against {longer} words: {row['prompt']}"


def test_mean_length_is_the_same_on_both_sides(rows: list[dict[str, str]]) -> None:
    harmful, safe = (statistics.mean(num_words(row[side]) for row in rows) for side in SIDES)
    assert harmful == pytest.approx(safe, rel=0.05)


@pytest.mark.parametrize("side", SIDES)
def test_no_opening_marks_a_side(rows: list[dict[str, str]], side: str) -> None:
    openings = collections.Counter(tuple(normalised(row[side]).split()[:3]) for row in rows)
    opening, count = openings.most_common(1)[0]
    assert count <= 0.05 * len(rows), f"{count} {side} answers open with {' '.join(opening)!r}"


def test_function_words_do_not_tell_the_sides_apart(rows: list[dict[str, str]]) -> None:
    """On kinds that the fit has not seen, an AUC of 0.5 is chance."""
    assert tell_apart_by_words(rows, FUNCTION_WORDS) < 0.60


def test_words_of_any_kind_hardly_tell_the_sides_apart(rows: list[dict[str, str]]) -> None:
    assert tell_apart_by_words(rows) < 0.80
