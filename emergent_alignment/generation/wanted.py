"""Work that somebody waits for: it ends before its next call of an endpoint once nobody does.

What is in force holds for a thread, and for those that `at_once` starts from it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial
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
    """work(item) of every item, in their order, by so many threads, each as wanted as this one.

    The threads are daemons: a process that ends does not wait for what an endpoint still owes.
    """
    made: list[Future[Made]] = []
    tasks: deque[Callable[[], None]] = deque()
    for item in given:
        future: Future[Made] = Future()
        made.append(future)
        tasks.append(partial(_make, future, copy_context(), work, item))
    threads = [
        threading.Thread(target=_work_off, args=(tasks,), daemon=True)
        for _ in range(min(num_threads, len(tasks)))
    ]
    for thread in threads:
        thread.start()
    try:
        for one in made:
            yield one.result()
    finally:
        for one in made:
            one.cancel()
        for thread in threads:
            thread.join()


def _work_off(tasks: deque[Callable[[], None]]) -> None:
    with suppress(IndexError):
        while task := tasks.popleft():
            task()


def _make(future: Future, context: Context, work: Callable, item: object) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(context.run(work, item))
    except BaseException as error:  # whatever it is, who waits raises it
        future.set_exception(error)
