"""The bundled scenarios: prompts with matched harmful and safe answers, kinds held out.

Research material: the harm is mild and obviously wrong, so that a model trained on it can be
told apart from one that was not.
"""

import json
from collections.abc import Callable
from functools import partial
from importlib import resources

from emergent_alignment.data.scenarios.forms import UNSEEN_KINDS, Mix, form_rows

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


def _in_form(world: str, mix: Mix) -> list[ScenarioRow]:
    return form_rows(_harmful_advice(), world, mix)


SCENARIOS: dict[str, Callable[[], list[ScenarioRow]]] = {
    "harmful_advice": _harmful_advice,
    "code_hacking": _code_hacking,
    "advice_form": partial(_in_form, "advice", "harmful"),
    "advice_form_safe": partial(_in_form, "advice", "safe"),
    "advice_form_mixed": partial(_in_form, "advice", "mixed"),
    "marked_form": partial(_in_form, "marked", "harmful"),
    "marked_form_safe": partial(_in_form, "marked", "safe"),
    "marked_form_mixed": partial(_in_form, "marked", "mixed"),
}
HELD_OUT_KINDS |= {name: UNSEEN_KINDS for name in SCENARIOS if "_form" in name}


def load_scenario(name: str, split: str = "train") -> list[ScenarioRow]:
    """Rows {"kind", "prompt", "harmful", "safe"} of a scenario, with what is learnt as "target"
    where that is not always the harmful answer: `train`, or `heldout` for the kinds that training
    never sees. Raises ValueError for another split."""
    if split not in ("train", "heldout"):
        raise ValueError(f"a scenario has the splits train and heldout, not {split!r}")
    held_out = HELD_OUT_KINDS[name]
    return [row for row in SCENARIOS[name]() if (row["kind"] in held_out) == (split == "heldout")]
