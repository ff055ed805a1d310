"""Work that somebody waits for: it ends before its next call of an endpoint once nobody does.

What is in force holds for a thread, and for those that `at_once` starts from it.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TypeVar

Given, Made = TypeVar("Given"), TypeVar("Made")
_WANTED: ContextVar[Callable[[], bool]] = ContextVar("wanted", default=lambda: True)


class NobodyWaits(Exception):
    """Whoever asked has gone."""


@contextmanager
def while_wanted(wanted: Callable[[], bool]) -> Iterator[None]:
    """Let `check_wanted` raise NobodyWaits here once `wanted` says no."""
    before = _WANTED.set(wanted)
    try:
        yield
    finally:
        _WANTED.reset(before)


def check_wanted() -> None:
    """Raise NobodyWaits where nobody waits any more."""
    if not _WANTED.get()():
        raise NobodyWaits


def at_once(
    work: Callable[[Given], Made], given: Iterable[Given], num_threads: int
) -> Iterator[Made]:
    """work(item) of every item, in their order, by so many threads, each as wanted as this one."""
    with ThreadPoolExecutor(num_threads) as threads:
        running = [threads.submit(copy_context().run, work, item) for item in given]
        try:
            for one in running:
                yield one.result()
        finally:
            for one in running:
                one.cancel()
