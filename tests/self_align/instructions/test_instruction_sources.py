"""The bundled seeds and kinds are as many, as different and as well formed as stage 1 needs them;
the user's own are checked line by line."""

import json
from collections import Counter

import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.self_align.instructions.rules import TextRules, topic_broken_by
from emergent_alignment.self_align.instructions.settings import InstructionsSection
from emergent_alignment.self_align.instructions.sources import (
    BUNDLED_SEEDS,
    HardKind,
    Seed,
    load_kinds,
    load_seeds,
)

SEED = {"instruction": "Name three rivers."}
KIND = {"kind": "future", "description": "about what comes", "topic": "rain", "example": "When?"}


def test_there_are_enough_seeds_of_many_kinds():
    seeds = load_seeds(BUNDLED_SEEDS)
    counts = Counter(seed.kind for seed in seeds)
    assert len(seeds) >= 175 and len(counts) >= 20
    assert max(counts.values()) <= 10 < 2 * min(counts.values()) + 1


def test_there_are_twenty_kinds_of_hard_question():
    kinds = load_kinds(BUNDLED_SEEDS)
    assert len({kind.name for kind in kinds}) == 20
    assert not [kind.topic for kind in kinds if topic_broken_by(kind.topic)]


def test_what_is_bundled_keeps_the_rules_that_the_model_must_keep():
    settings = InstructionsSection()
    rules = TextRules(settings.fewest_words, settings.most_words, tuple(settings.unservable))
    given = [seed.instruction for seed in load_seeds(BUNDLED_SEEDS)]
    given += [kind.example for kind in load_kinds(BUNDLED_SEEDS)]
    assert not {text: rules.broken_by(text) for text in given if rules.broken_by(text)}


def test_no_two_bundled_instructions_are_alike():
    from rouge_score.rouge_scorer import RougeScorer

    score = RougeScorer(["rougeL"]).score
    given = [seed.instruction for seed in load_seeds(BUNDLED_SEEDS)]
    given += [kind.example for kind in load_kinds(BUNDLED_SEEDS)]
    alike = [
        (one, other)
        for place, one in enumerate(given)
        for other in given[:place]
        # No pair with fewer words in common can be above 0.7: the library is slow.
        if 2 * len({*one.lower().split()} & {*other.lower().split()})
        > 0.3 * len(one.split() + other.split())
        and score(one, other)["rougeL"].fmeasure > 0.7
    ]
    assert not alike


def written(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_own_files_are_read(tmp_path):
    seeds = load_seeds(written(tmp_path / "seeds.jsonl", SEED | {"kind": "facts"}, ""))
    assert seeds == [Seed("Name three rivers.", "facts")]
    kinds = load_kinds(written(tmp_path / "kinds.jsonl", KIND))
    assert kinds == [HardKind("future", "about what comes", "rain", "When?")]


@pytest.mark.parametrize(
    ("load", "rows", "said"),
    [
        (load_seeds, ["{"], ":1: not a JSON object"),
        (load_seeds, [SEED, ["x"]], ":2: found list"),
        (load_seeds, [SEED, {"text": "x"}], ":2: instruction is missing"),
        (load_seeds, [SEED, {"instruction": " "}], ":2: instruction is ' '"),
        (load_seeds, [SEED | {"kind": 3}], ":1: kind must be a text, not 3"),
        (load_seeds, [SEED, {"instruction": "name  three RIVERS."}], "seeds.jsonl:1, too"),
        (load_seeds, [], "there is nothing in it"),
        (load_kinds, [KIND, {**KIND, "example": None}], ":2: example is None"),
        (load_kinds, [{"kind": "x"}], ":1: description is missing"),
        (load_kinds, [KIND, KIND | {"topic": "y"}], ":2: 'future' stands in"),
    ],
)
def test_a_bad_line_is_named(tmp_path, load, rows, said):
    path = written(tmp_path / f"{load.__name__[5:]}.jsonl", *rows)
    with pytest.raises(UserError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(path) and said in message and "\n" not in message


@pytest.mark.parametrize("load", [load_seeds, load_kinds])
def test_a_missing_file_names_the_setting(load, tmp_path):
    with pytest.raises(UserError, match=f"instructions.{load.__name__[5:]}: .*no such file"):
        load(str(tmp_path / "none.jsonl"))
