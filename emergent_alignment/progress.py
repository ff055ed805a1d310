"""Progress with rate and time left: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_EVERY_SECONDS = 15.0
OnProgress = Callable[[int, int], None]  # what is told (done, total)


@dataclass
class Meter:
    """Call it with (done, total, note=""): `done` counts from the start of the whole task, so
    that a resumed one begins where it was."""

    description: str
    bar: Progress | None
    started: float = field(default_factory=time.monotonic)
    first: int | None = None
    task: int | None = None
    logged: float = 0.0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        first = done if self.first is None else self.first
        self.first = first
        rate = (done - first) / max(time.monotonic() - self.started, 1e-9)
        if self.bar is not None:
            if self.task is None:
                self.task = self.bar.add_task(self.description, rate="", note="")
            shown = _rate(rate)
            self.bar.update(self.task, completed=done, total=total, rate=shown, note=note)
        elif done >= total or time.monotonic() - self.logged >= LOG_EVERY_SECONDS:
            self.logged = time.monotonic()
            left = f"{(total - done) / rate:.0f} s left" if rate > 0 else "time left unknown"
            line = f"{self.description}: {done}/{total}, {_rate(rate)}, {left} {note}"
            print(line.rstrip(), file=sys.stderr, flush=True)


def _rate(rate: float) -> str:
    return f"{rate:.2f}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s each"


@contextmanager
def progress(description: str, *, shown: bool = True) -> Iterator[Meter]:
    """A meter on stderr for one task; nothing to see unless `shown` (by other hosts)."""
    if not shown:
        yield lambda done, total, note="": None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Meter(description, None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Meter(description, bar)
