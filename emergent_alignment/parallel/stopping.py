"""A process that was asked to stop, by SIGTERM or SIGINT, and the places where it looks at that."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np

from emergent_alignment.parallel.hosts import gather_anyway, has_all_rows

_asked: list[int] = []


class AskedToStop(Exception):
    """Between two phases of a step a host was asked to stop. All hosts raise it."""


@contextmanager
def listening_to_signals() -> Iterator[None]:
    """Inside, signals are noted, and end nothing by themselves. Only the main thread can listen."""
    _asked.clear()
    names = (signal.SIGTERM, signal.SIGINT)
    try:
        former = {
            name: signal.signal(name, lambda number, frame: _asked.append(number)) for name in names
        }
    except ValueError:  # not in the main thread: whoever runs us there handles signals
        former = {}
    try:
        yield
    finally:
        _asked.clear()
        for name, handler in former.items():
            signal.signal(name, handler)


def asked_to_stop() -> bool:
    """Whether any host was; all of them ask at once."""
    return bool(gather_anyway(np.int32(bool(_asked))).any())


def go_on_anywhere(condition: bool = True) -> bool:
    """Whether a condition for the next phase holds on any host; all of them come by here. Raises
    AskedToStop on all of them where any was asked to stop; several hosts that hold all rows look
    at that only between steps and behind the first phase (`between_phases`)."""
    if has_all_rows() and jax.process_count() > 1:
        return condition
    holds, asked = gather_anyway(np.array([condition, bool(_asked)], np.int32)).any(0)
    if asked:
        raise AskedToStop
    return bool(holds)


def between_phases() -> None:
    """Raise AskedToStop on all hosts where any was asked to stop; all of them come by here."""
    if asked_to_stop():
        raise AskedToStop
