"""Relative paths in a run's settings: what they were meant from, wherever the run is read."""

import os
from contextlib import suppress
from pathlib import Path

from emergent_alignment.data.scenarios import SCENARIOS
from emergent_alignment.runs.config import C
from emergent_alignment.settings import changed, value_of

PATHS = (
    *("model.path", "model.chat_template", "conscience.calibration"),
    *("data.train", "data.evaluation"),
)


def located(config: C, folder: str | None) -> C:
    """The settings with those of `PATHS` that name something in `folder`, or else in the working
    folder, made absolute."""
    changes = {}
    for name in PATHS:
        text = value_of(config, name)
        if text in ("", "default", *SCENARIOS):
            continue
        for place in (Path(folder or ".") / Path(text).expanduser(), Path(text).absolute()):
            with suppress(OSError, ValueError):  # a template's text is no name of a file
                if place.exists():
                    changes[name] = os.path.normpath(place)
                    break
    return changed(config, changes)


def same_place(name: str, mine: C, theirs: C, folder: str | None) -> bool:
    """Whether a setting is a path that names the same in both: mine as seen from the working
    folder, theirs from `folder`."""
    if name not in PATHS:
        return False
    return value_of(located(mine, os.getcwd()), name) == value_of(located(theirs, folder), name)
