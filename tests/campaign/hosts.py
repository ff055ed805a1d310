"""A run on two hosts of which one is killed, or both, at random moments and at file operations: who
is left ends by itself, and both started again end with what the undisturbed run ends with."""

import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from campaign.commands import COMMANDS, write_files
from campaign.contents import contents, difference
from campaign.dying import counting, dying, read_counts
from campaign.forked import Ended, ended, prepare, started
from campaign.trial import Trial

TRIALS = 40
HOSTS = 2
_DEVICES = 2  # of each host
_SILENT_SECONDS = "20"  # after which a host is taken for lost
# The policy writes, the frozen copy reviews and corrects, and rounds are replayed.
_ROLLOUTS = {"conscience.every": 2, "conscience.replay": 4, "mesh.fsdp": 2}
Before = Callable[[], None]


def trials(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """`count` kills: of host 0, of host 1 and of both in turn."""
    prepare(folder)
    write_files(folder / "files")
    draws = random.Random(seed)
    place = _fresh(folder)
    counts = [folder / f"counts-{host}" for host in range(HOSTS)]
    done = _ends(_both(place, folder, [counting(place, one) for one in counts]), folder)
    if any(one.code for one in done):
        raise RuntimeError(f"two hosts fail undisturbed: {[one.last_words() for one in done]}")
    known = contents(place), max(one.seconds for one in done)
    operations = [read_counts(one) for one in counts]
    for number in range(count):
        victims = [(0,), (1,), (0, 1)][number % 3]
        case, outcome, detail = _killed(victims, known, operations, draws, folder)
        yield Trial("hosts", case, outcome, detail)


def _killed(
    victims: tuple[int, ...],
    known: tuple[dict, float],
    operations: list[dict[str, int]],
    draws: random.Random,
    folder: Path,
) -> tuple:
    """(case, outcome, detail) of one kill."""
    place, (wanted, seconds) = _fresh(folder), known
    who = "both hosts" if len(victims) > 1 else f"host {victims[0]}"
    kinds = [kind for kind, number in operations[victims[0]].items() if number]
    if len(victims) > 1 or not kinds or draws.random() < 0.5:
        moment = draws.uniform(0, seconds)
        case, where = f"{who}, at any moment", f"after {moment:.2f} s"
        processes = _both(place, folder, [_nothing] * HOSTS)
        left = _ends(processes, folder, {host: moment for host in victims})
    else:
        kind, after = draws.choice(kinds), draws.random() < 0.5
        number = draws.randrange(operations[victims[0]][kind])
        case = f"{who}, at a file"
        where = f"{'after' if after else 'before'} {kind} {number}"
        hooks = [_nothing] * HOSTS
        hooks[victims[0]] = dying(place, kind, number, after=after)
        left = _ends(_both(place, folder, hooks), folder)
    if hung := [host for host, one in enumerate(left) if one.hung]:
        return case, "fault", f"{where}: host {hung[0]} did not end"
    again = _ends(_both(place, folder, [_nothing] * HOSTS), folder)
    if failed := [one for one in again if one.code]:
        return case, "fault", f"{where}: {failed[0].last_words()}"
    if found := difference(wanted, contents(place)):
        return case, "silent", f"{where}: {found}"
    return case, "right", ""


def _fresh(folder: Path) -> Path:
    place = folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def _both(place: Path, folder: Path, hooks: list[Before]) -> list[int]:
    """The processes of one start, each with its hooks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = COMMANDS["train"].line(place.absolute(), (folder / "files").absolute())
    words += [f"--config.{name}={value}" for name, value in _ROLLOUTS.items()]
    words += ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(HOSTS)]
    words += ["--host-timeout", _SILENT_SECONDS]
    return [
        started([*words, "--process-id", str(host)], _said(folder, host), before=_as_host(hook))
        for host, hook in enumerate(hooks)
    ]


def _as_host(hook: Before) -> Before:
    def before() -> None:
        os.environ["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={_DEVICES}"
        hook()

    return before


def _ends(
    processes: list[int], folder: Path, kill_after: dict[int, float] | None = None
) -> list[Ended]:
    """How each ended; those with a moment are killed then, in its order."""
    moments, ends, gone = kill_after or {}, {}, 0.0
    for host in sorted(range(HOSTS), key=lambda host: moments.get(host, float("inf"))):
        due = None if host not in moments else max(moments[host] - gone, 0.0)
        ends[host] = ended(processes[host], _said(folder, host), kill_after=due)
        gone += ends[host].seconds
    return [ends[host] for host in range(HOSTS)]


def _said(folder: Path, host: int) -> Path:
    return folder / f"said-{host}"


def _nothing() -> None:
    pass
