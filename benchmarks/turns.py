"""Turns between two sides, and how much of the processor other programs take meanwhile.

The share is known on Linux only (/proc); elsewhere nothing is waited for.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from workers import Answer, Worker, say

Found = TypeVar("Found")

QUIET_SHARE = 0.1
_STAT = Path("/proc/stat")
_LOOK_SECONDS = 3.0


class Measured(Protocol):
    """A process that is measured, and is no other program."""

    def processor_seconds(self) -> float:
        """Processor time that it has taken so far."""


class ThisProcess:
    """The benchmark itself, where it measures in its own process."""

    def processor_seconds(self) -> float:
        """Processor time of all threads so far."""
        return time.process_time()


class OthersShare:
    """The share of all cores that processes other than these workers take, from here on."""

    def __init__(self, workers: Sequence[Measured]):
        self._workers = workers
        self._start = self._now()

    def share(self) -> float | None:
        """Between 0 and 1, since the beginning; None where it cannot be known."""
        if self._start is None:
            return None
        wall, busy, own = (now - then for now, then in zip(self._now(), self._start))
        return round(min(max((busy - own) / (wall * os.cpu_count()), 0.0), 1.0), 3)

    def _now(self) -> tuple[float, float, float] | None:
        if not _STAT.exists():
            return None
        ticks = os.sysconf("SC_CLK_TCK")
        # user, nice, system, idle, iowait, irq, softirq, steal
        fields = [int(field) for field in _STAT.read_text("utf-8").split("\n")[0].split()[1:9]]
        busy = (sum(fields) - fields[3] - fields[4]) / ticks
        own = sum(worker.processor_seconds() for worker in self._workers)
        return time.perf_counter(), busy, own


@dataclass(frozen=True)
class Turn:
    """A timed step of ours and one of the peer, and what other programs took meanwhile."""

    ours: Answer
    theirs: Answer
    others_share: float | None


def take_turns(
    ours: Worker, theirs: Worker, order: dict, repeats: int, patience_minutes: float
) -> list[Turn]:
    """`repeats` turns, in each a step of ours and then one of the peer's."""
    workers = ours, theirs

    def turn() -> list[Answer]:
        return [worker.step(**order) for worker in workers]

    quiet = quiet_turns(turn, workers, repeats, patience_minutes)
    return [Turn(*answers, share) for answers, share in quiet]


def quiet_turns(
    turn: Callable[[], Found], measured: Sequence[Measured], repeats: int, patience_minutes: float
) -> list[tuple[Found, float | None]]:
    """What `repeats` turns gave, each with the share of the processor that others took.

    While patience lasts, turns begin when the machine is quiet, and those in which it did not
    stay so are made again. What is kept is chosen by what others did, never by our times.
    """
    until = time.perf_counter() + 60 * patience_minutes
    turns: list[tuple[Found, float | None]] = []
    while True:
        wait_until_quiet(measured, until)
        others = OthersShare(measured)
        answers = turn()
        turns.append((answers, others.share()))
        num_quiet = sum(is_quiet(share) for _, share in turns)
        say(f"  turn {len(turns)}: {num_quiet} of {repeats} quiet ones")
        if num_quiet >= repeats or (len(turns) >= repeats and time.perf_counter() >= until):
            return sorted(turns, key=lambda kept: kept[1] or 0.0)[:repeats]


def is_quiet(others_share: float | None) -> bool:
    """Whether other programs took little, as far as is known."""
    return others_share is None or others_share < QUIET_SHARE


def wait_until_quiet(measured: Sequence[Measured], until: float) -> None:
    """Return when others take less than QUIET_SHARE, or at the time `until`."""
    said = False
    while time.perf_counter() < until:
        looking = OthersShare(measured)
        time.sleep(_LOOK_SECONDS)
        share = looking.share()
        if is_quiet(share):
            return
        if not said:
            say(f"  waiting: other programs take {share:.0%} of the processor")
            said = True


def turns_content(turns: Sequence[Turn]) -> dict:
    """What a row keeps of its turns."""
    content: dict = {"others_share": [turn.others_share for turn in turns]}
    for name in ("ours", "theirs"):
        answers = [getattr(turn, name) for turn in turns]
        content[name] = {
            "seconds": [answer.seconds for answer in answers],
            "processor_seconds": [answer.processor_seconds for answer in answers],
            "peak_bytes": answers[-1].peak_bytes,
        }
    return content


def quiet_note(rows: Sequence[dict]) -> str:
    """One line for under the table."""
    known = [share for row in rows for share in row["others_share"] if share is not None]
    if not known:
        return "How busy the machine was otherwise is not known here."
    most = max(known)
    note = f"Other programs took at most {most:.0%} of the processor during a turn."
    return note + (" Measure again on a quiet machine." if most >= QUIET_SHARE else "")
