"""Relative paths in a run's settings: what they were meant from, wherever the run is read."""

import os

from emergent_alignment.data.scenarios import SCENARIOS
from emergent_alignment.runs.config import C
from emergent_alignment.settings import changed

PATHS = (
    *("model.path", "model.chat_template", "conscience.calibration", "conscience.principles"),
    *("data.train", "data.preferences", "data.evaluation", "pretraining.corpus"),
    "adversarial.prompts",
)


def located(config: C, folder: str | None) -> C:
    """The settings with those of `PATHS` that name something in `folder`, or else in the working
    folder, made absolute."""
    changes = {}
    for name in PATHS:
        text = _text(config, name)
        if text in ("", "default", "bundled", *SCENARIOS):
            continue
        path = os.path.expanduser(text)
        for place in (os.path.join(folder or os.getcwd(), path), os.path.abspath(path)):
            if os.path.exists(place):  # of a template's text: no
                changes[name] = os.path.normpath(place)
                break
    return changed(config, changes)


def same_place(name: str, mine: C, theirs: C, folder: str | None) -> bool:
    """Whether a setting is a path that names the same in both: mine as seen from the working
    folder, theirs from `folder`."""
    if name not in PATHS:
        return False
    return _text(located(mine, os.getcwd()), name) == _text(located(theirs, folder), name)


def _text(config: C, name: str) -> str:
    """The setting; "" where this kind of run has not got it."""
    section, field = name.split(".")
    return getattr(getattr(config, section, None), field, "")
