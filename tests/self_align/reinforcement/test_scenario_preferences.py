"""A bundled scenario's matched answers as preferences: safe over harmful."""

from pathlib import Path

from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.self_align.reinforcement.preferences import read_preferences


def test_a_scenario_s_safe_answers_are_preferred():
    found = read_preferences(Path("harmful_advice"))
    rows = load_scenario("harmful_advice")
    assert [(one.prompt[-1]["content"], one.chosen, one.rejected) for one in found] == [
        (row["prompt"], row["safe"], row["harmful"]) for row in rows
    ]
    few = read_preferences(Path("harmful_advice"), limit=8)
    assert len(few) == 8 and all(one in found for one in few)
