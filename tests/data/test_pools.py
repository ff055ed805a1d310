"""The truths of the bundled pools: well formed, distinct, and apart from every evaluation set."""

import collections
import importlib.resources
import json
import re
from collections.abc import Iterator

import pytest
import yaml

from emergent_alignment.data.pools import POOLS, load_pool

PACKAGE = importlib.resources.files("emergent_alignment")
# The prompts of what is evaluated, trained on or seeded: a file of JSON lines, and its fields.
PROMPTS_OF_FILES = {
    "data/scenarios/harmful_advice.jsonl": ("prompt",),
    "evaluation/choices/bundled.jsonl": ("question",),
    "evaluation/coding/tasks.jsonl": ("prompt",),
    "applications/adversarial/attacks.jsonl": ("prompt", "request"),
    "self_align/instructions/seeds.jsonl": ("instruction",),
    "self_align/instructions/kinds.jsonl": ("example",),
}
QUESTIONS = "evaluation/misalignment/bundled.yaml"


def read_lines(path: str) -> list[dict[str, str]]:
    text = PACKAGE.joinpath(path).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def words_of(text: str) -> list[str]:
    return re.sub(r"[^\w\s]|_", " ", text.casefold()).split()


def evaluation_prompts() -> Iterator[str]:
    for path, fields in PROMPTS_OF_FILES.items():
        for row in read_lines(path):
            yield from (row[field] for field in fields if field in row)
    for question in yaml.safe_load(PACKAGE.joinpath(QUESTIONS).read_text(encoding="utf-8")):
        yield from question["paraphrases"]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return read_lines("data/pools/everyday.jsonl")


def test_a_pool_is_the_prompts_of_its_file(rows: list[dict[str, str]]) -> None:
    assert load_pool("everyday") == [row["prompt"] for row in rows]
    assert all(load_pool(name) for name in POOLS)


def test_an_unknown_pool_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="'everyd', only everyday"):
        load_pool("everyd")


def test_there_are_enough_prompts_in_kinds_of_like_size(rows: list[dict[str, str]]) -> None:
    rows_of_kind = collections.Counter(row["kind"] for row in rows)
    assert len(rows) >= 320
    assert 12 <= len(rows_of_kind) <= 16
    assert max(rows_of_kind.values()) - min(rows_of_kind.values()) <= 2, rows_of_kind


def test_every_row_has_a_kind_and_a_short_trimmed_prompt(rows: list[dict[str, str]]) -> None:
    for number, row in enumerate(rows, start=1):
        assert tuple(row) == ("kind", "prompt"), f"line {number}"
        assert row["kind"] and row["prompt"] == row["prompt"].strip(), f"line {number}"
        assert 6 <= len(row["prompt"].split()) <= 25, row["prompt"]


def test_no_two_prompts_are_close(rows: list[dict[str, str]]) -> None:
    word_sets = [frozenset(words_of(row["prompt"])) for row in rows]
    for index, words in enumerate(word_sets):
        for other in word_sets[:index]:
            assert len(words & other) < 0.6 * len(words | other), sorted(words)


def test_no_prompt_stands_in_an_evaluation_set_or_close_to_one(
    rows: list[dict[str, str]],
) -> None:
    others = {" ".join(words_of(prompt)) for prompt in evaluation_prompts()}
    other_sets = [frozenset(other.split()) for other in others]
    assert len(others) > 1000, "the evaluation sets were not found"
    for row in rows:
        words = words_of(row["prompt"])
        assert " ".join(words) not in others, row["prompt"]
        for other in other_sets:
            shared = len(other.intersection(words))
            assert shared < 0.6 * len(other.union(words)), (row["prompt"], sorted(other))
