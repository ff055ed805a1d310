"""Reviews of targets are kept on disk: what they depend on, and who may write them."""

import json

import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.conscience import question, review
from emergent_alignment.conscience.pairs import Reviewed
from emergent_alignment.data.sources import load_examples
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.randomness import Draws, Purpose
from emergent_alignment.runs import reviewed_targets
from emergent_alignment.runs.from_config import conscience_settings, load_model
from emergent_alignment.settings import changed


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny"))
    config.conscience.cache = str(tmp_path_factory.mktemp("reviewed"))
    return load_model(typed(config))


@pytest.fixture(scope="module")
def kept_at(setup):
    """kept_at(layout): the file that keeps the reviews of a few bundled rows."""
    examples = load_examples("harmful_advice", limit=3)

    def path(layout):
        config = changed(setup.config, {"conscience.layout": layout})
        return reviewed_targets.reviews_file(config, setup, conscience_settings(config), examples)

    return path


@pytest.mark.parametrize(
    ("layout", "module", "name", "reworded"),
    [
        ("quote", question, "_QUOTE", lambda text: f"Look. {text}"),
        ("quote", question, "defused", lambda defused: lambda *inputs: defused(*inputs)[1:]),
        ("quote", question, "_REWRITE", str.upper),
        ("turn", question, "_REWRITE", str.upper),
        ("turn", question, "_CRITIQUE", str.upper),
        ("turn", question, "next_turn", lambda turn: lambda chat, said: turn(chat, f" {said}")),
        ("turn", review, "question_text", lambda text: lambda *a, **o: text(*a, **o).upper()),
    ],
)
def test_another_wording_is_another_review(kept_at, monkeypatch, layout, module, name, reworded):
    before = kept_at(layout)
    assert kept_at(layout) == before
    monkeypatch.setattr(module, name, reworded(getattr(module, name)))
    assert kept_at(layout) != before


def test_what_the_turn_layout_never_shows_is_no_part_of_it(kept_at, monkeypatch):
    before = kept_at("turn")
    monkeypatch.setattr(question, "_QUOTE", f"Look. {question._QUOTE}")
    assert kept_at("turn") == before


def test_what_corrections_draw_from_is_part_of_it(kept_at, monkeypatch):
    """Reviews of versions that drew otherwise are not mistaken for this one's."""
    before = kept_at("quote")

    def elsewhere(seed, purpose):
        return Draws(seed, Purpose.CORRECTIONS, 0)

    monkeypatch.setattr(reviewed_targets, "Draws", elsewhere)
    assert kept_at("quote") != before


def test_two_runs_that_review_at_once_keep_whole_records(setup, monkeypatch):
    """The second starts and ends while the first is at its first rows."""
    config = setup.config
    conscience, examples = conscience_settings(config), load_examples("harmful_advice", limit=40)
    tokenized = [tokenize(example, setup.chat, 64, 64) for example in examples]
    given = (config, setup, conscience, examples, tokenized, list(range(len(examples))))
    asked, second = [], []

    def scripted(reader, settings, prompts, answers, key, *, row_ids, with_reference):
        asked.extend(row_ids)
        if not second:
            second.append({})
            second[0] |= reviewed_targets.reviewed_targets(*given)
        return [
            Reviewed(prompt, answer.text, 1.0, "approved")
            for prompt, answer in zip(prompts, answers)
        ]

    monkeypatch.setattr(reviewed_targets, "review_and_revise", scripted)
    first = reviewed_targets.reviewed_targets(*given)
    assert first == second[0] and first.keys() == set(range(40))
    assert sorted(asked) == sorted([*first, *first]), "neither saw the other's"
    kept = reviewed_targets.reviews_file(config, setup, conscience, examples)
    records = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    assert sorted(record["row"] for record in records) == sorted(asked)
    asked.clear()
    assert reviewed_targets.reviewed_targets(*given) == first and not asked
