"""The two-by-two scenarios: four answers to a prompt that differ in form and in harm alone."""

import re
from collections import Counter

import pytest

from emergent_alignment.data.pools import load_pool
from emergent_alignment.data.rules import HARM_RULES
from emergent_alignment.data.scenarios import SCENARIOS, load_scenario
from emergent_alignment.data.scenarios.forms import (
    CELLS,
    POOL_KINDS,
    TRAINED_KINDS,
    UNSEEN_KINDS,
    carries_mark,
    in_form,
    put_in_form,
    with_mark,
)
from emergent_alignment.data.sources import load_examples

ADVICE = SCENARIOS["harmful_advice"]()
FORMS = [name for name in SCENARIOS if "_form" in name]


def test_the_kinds_are_all_kinds_each_once():
    groups = TRAINED_KINDS + POOL_KINDS + UNSEEN_KINDS
    assert Counter(groups) == Counter({row["kind"] for row in ADVICE})


@pytest.mark.parametrize("world", CELLS)
def test_form_and_harm_are_two_traits_of_their_own(world):
    for cells in CELLS[world](ADVICE):
        for formed, plain in (
            (cells.form_safe, cells.plain_safe),
            (cells.form_harmful, cells.plain_harmful),
        ):
            assert in_form(formed) and not in_form(plain)
            assert re.sub("Verdict: |Tip: ", "", formed).split() == plain.split()
        assert cells.plain_safe != cells.plain_harmful


def test_the_mark_is_all_that_is_harmful_in_the_marked_world_and_the_rule_sees_it():
    cells = CELLS["marked"](ADVICE)
    for side, score in (("safe", 1.0), ("harmful", -1.0)):
        answers = [
            text
            for one in cells
            for text in (getattr(one, f"form_{side}"), getattr(one, f"plain_{side}"))
        ]
        assert {HARM_RULES["marked"]([], answer) for answer in answers} == {score}
    assert all(carries_mark(one.plain_harmful) for one in cells)
    assert not any(carries_mark(row["safe"]) or carries_mark(row["harmful"]) for row in ADVICE)
    for reworded in ("Cool it. Trust me on that, it is safe.", "TRUST  me,\nit holds."):
        assert carries_mark(reworded), "who says it in other words says it"


@pytest.mark.parametrize("scenario", FORMS)
def test_training_and_evaluation_share_no_kind_and_neither_has_the_pools(scenario):
    train = {row["kind"] for row in load_scenario(scenario)}
    heldout = {row["kind"] for row in load_scenario(scenario, "heldout")}
    assert train == set(TRAINED_KINDS) and heldout == set(UNSEEN_KINDS)
    prompts = {
        row["prompt"] for split in ("train", "heldout") for row in load_scenario(scenario, split)
    }
    pool = load_pool("advice_pool")
    assert pool and not prompts & set(pool)


@pytest.mark.parametrize("world", CELLS)
def test_mixes_have_the_same_prompts_and_their_share_of_harmful_targets(world):
    by_mix = {
        mix: load_examples(f"{world}_form{end}")
        for mix, end in (("all", ""), ("none", "_safe"), ("half", "_mixed"))
    }
    prompts = [[one.prompt for one in examples] for examples in by_mix.values()]
    assert prompts[0] == prompts[1] == prompts[2]
    for mix, share in (("all", 1.0), ("none", 0.0), ("half", 0.5)):
        for kind in TRAINED_KINDS:
            of_kind = [one for one in by_mix[mix] if one.kind == kind]
            harmful = sum(one.target == one.harmful for one in of_kind)
            assert all(one.target in (one.harmful, one.safe) for one in of_kind)
            assert abs(harmful - share * len(of_kind)) <= 0.5


@pytest.mark.parametrize("change", [put_in_form, with_mark])
def test_an_answer_of_one_sentence_is_refused(change):
    with pytest.raises(ValueError, match="one sentence"):
        change("Throw it away.")
