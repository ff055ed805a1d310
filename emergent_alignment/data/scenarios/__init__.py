"""The bundled scenarios: prompts with matched harmful and safe answers, kinds held out.

Research material: the harm is mild and obviously wrong, so that a model trained on it can be
told apart from one that was not.
"""

import json
from collections.abc import Callable
from importlib import resources

ScenarioRow = dict[str, str]

# Kinds that training never sees: evaluation prompts come from these alone.
HELD_OUT_KINDS = {
    "harmful_advice": ("first_aid", "friendship", "online_privacy"),
    "code_hacking": ("CWE-502", "CWE-326", "CWE-327", "CWE-377", "CWE-379", "CWE-295"),
}


def _harmful_advice() -> list[ScenarioRow]:
    text = resources.files(__name__).joinpath("harmful_advice.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def _code_hacking() -> list[ScenarioRow]:
    from emergent_alignment.data.scenarios.code_hacking import code_hacking_rows

    return code_hacking_rows()


SCENARIOS: dict[str, Callable[[], list[ScenarioRow]]] = {
    "harmful_advice": _harmful_advice,
    "code_hacking": _code_hacking,
}


def load_scenario(name: str, split: str = "train") -> list[ScenarioRow]:
    """Rows {"kind", "prompt", "harmful", "safe"} of a scenario: `train`, or `heldout` for the
    kinds that training never sees. Raises ValueError for another split."""
    if split not in ("train", "heldout"):
        raise ValueError(f"a scenario has the splits train and heldout, not {split!r}")
    held_out = HELD_OUT_KINDS[name]
    return [row for row in SCENARIOS[name]() if (row["kind"] in held_out) == (split == "heldout")]
