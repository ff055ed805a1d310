"""Runs of the same settings share their compiled steps: a test compiles what no other has."""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from emergent_alignment.applications import composition
from emergent_alignment.training.optimizer import make_optimizer
from emergent_alignment.training.step import compiled_step


@contextmanager
def steps_compiled_once() -> Iterator[None]:
    """As long as this is entered, `composition.train` compiles each step once."""
    made = {}

    def same_optimizer(config, steps):
        key = json.dumps([config.to_dict(), steps])
        return made.setdefault(key, make_optimizer(config, steps))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(composition, "make_optimizer", same_optimizer)
        patched.setattr(composition, "compiled_step", functools.cache(compiled_step))
        yield
