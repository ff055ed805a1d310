"""Relative paths in a run's settings: what they were meant from, wherever the run is read."""

import os
from functools import partial

from emergent_alignment.data.mixtures import with_sources
from emergent_alignment.data.pools import POOLS
from emergent_alignment.data.scenarios import SCENARIOS
from emergent_alignment.runs.config import C
from emergent_alignment.settings import changed

PATHS = (
    *("model.path", "model.chat_template", "conscience.calibration", "conscience.principles"),
    "conscience.pool",
    *("data.train", "data.preferences", "data.evaluation", "pretraining.corpus"),
    "adversarial.prompts",
)
_NAMES = ("", "default", "bundled", *SCENARIOS, *POOLS)


def located(config: C, folder: str | None) -> C:
    """The settings with those of `PATHS` that name something in `folder`, or else in the working
    folder, made absolute."""
    located_here = partial(_located, folder or os.getcwd())
    texts = {name: _text(config, name) for name in PATHS}
    places = {name: with_sources(text, located_here) for name, text in texts.items()}
    return changed(config, {name: text for name, text in places.items() if text != texts[name]})


def _located(folder: str, text: str) -> str:
    if text in _NAMES:
        return text
    path = os.path.expanduser(text)
    for place in (os.path.join(folder, path), os.path.abspath(path)):
        if os.path.exists(place):  # of a template's text: no
            return os.path.normpath(place)
    return text


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
