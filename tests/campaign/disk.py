"""Disks that fill, that may not be written, that flip bits; and two commands in one folder."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from campaign.commands import COMMANDS, write_files
from campaign.contents import contents, difference
from campaign.forked import Ended, ended, finished, prepare, started
from campaign.trial import Trial

TRIALS = 60
_MEGABYTES = 8
_BUSY = "another process works in it"
_FILLED = ("train", "targets", "adversarial", "random weights", "choices", "quickstart")


def trials(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """`count` trials, the kinds of disturbance taking turns."""
    prepare(folder)
    write_files(folder / "files")
    draws = random.Random(seed)
    kinds: dict[str, Callable] = {
        "flipped bits of a checkpoint": _flipped,
        "a disk that fills": _filled,
        "two runs in one folder": _two_at_once,
        "asked to stop on a full disk": _stopped,
        "a disk that may not be written": _read_only,
    }
    if not _can_mount(folder):
        del kinds["a disk that fills"], kinds["asked to stop on a full disk"]
        del kinds["a disk that may not be written"]
    for number in range(count):
        case = list(kinds)[number % len(kinds)]
        yield Trial("disk", case, *kinds[case](draws, folder))


def _flipped(draws: random.Random, folder: Path) -> tuple[str, str]:
    """A bit of one of a checkpoint's files is flipped, and the run's model is exported."""
    kept, place = folder / "whole", folder / "place"
    if not kept.is_dir():
        kept.mkdir()
        _must(finished(_line("train", kept, folder), folder / "said"))
        _must(finished(_line("export", kept, folder), folder / "said"))
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(kept, place)
    shutil.rmtree(place / "exported")
    newest = max((place / "run" / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    files = [path for path in sorted(newest.rglob("*")) if path.is_file() and path.stat().st_size]
    path = draws.choices(files, [file.stat().st_size for file in files])[0]
    content = bytearray(path.read_bytes())
    at, bit = draws.randrange(len(content)), draws.randrange(8)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    where = f"{path.relative_to(newest)}, byte {at}, bit {bit}"
    done = finished(_line("export", place, folder), folder / "said")
    if done.code:
        return _refused(done, where)
    exported = [contents(one / "exported") for one in (kept, place)]
    found = difference(*exported)
    return ("silent", f"{where}: {found}") if found else ("right", "")


def _filled(draws: random.Random, folder: Path) -> tuple[str, str]:
    """The disk has so little room that the command cannot end; then there is room again."""
    name = draws.choice(_FILLED)
    with _small_disk(folder) as disk:
        place = _beginning(name, disk, folder)
        filler = disk / "filler"
        _fill(filler, draws.randrange(0, 400_000))
        done = finished(_line(name, place, folder), folder / "said")
        if done.code != 0:
            outcome = _refused(done, name)
            if outcome[0] == "fault":
                return outcome
        filler.unlink(missing_ok=True)
        return _goes_on(name, place, folder, "right" if done.code == 0 else "refused")


def _stopped(draws: random.Random, folder: Path) -> tuple[str, str]:
    """A run on a disk that is filled as it runs is asked to stop."""
    with _small_disk(folder) as disk:
        place, said = disk / "place", folder / "said"
        place.mkdir()
        line = _line("train", place, folder)
        line = [word.replace("training.steps=6", "training.steps=500") for word in line]
        process = started(line, said)
        _until(lambda: (place / "run" / "metrics.jsonl").exists() or _is_over(process))
        _fill(disk / "filler", draws.randrange(0, 3_000))
        time.sleep(draws.uniform(0, 0.5))
        os.kill(process, signal.SIGTERM)
        done = ended(process, said)
        (disk / "filler").unlink(missing_ok=True)
        if done.hung:
            return "fault", "SIGTERM is swallowed"
        if done.code not in (75, -signal.SIGTERM):
            return _refused(done, "train")
        return "right", ""


def _read_only(draws: random.Random, folder: Path) -> tuple[str, str]:
    """The disk may not be written, from before the start or since the first run."""
    name = draws.choice(_FILLED)
    with _small_disk(folder) as disk:
        place = _beginning(name, disk, folder)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = finished(_line(name, place, folder), folder / "said")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        outcome = _refused(done, name)
        return outcome if outcome[0] == "fault" else _goes_on(name, place, folder, outcome[0])


def _two_at_once(draws: random.Random, folder: Path) -> tuple[str, str]:
    """Two of one command start in one folder at about the same time."""
    name = draws.choice(("train", "targets", "quickstart", "choices"))
    place = folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    place = _beginning(name, place, folder)
    said = [folder / f"said-{number}" for number in (1, 2)]
    first = started(_line(name, place, folder), said[0])
    time.sleep(draws.uniform(0, 1.0))
    second = started(_line(name, place, folder), said[1])
    both = [ended(first, said[0]), ended(second, said[1])]
    refused = [done for done in both if done.code == 2]
    if any(done.code not in (0, 2) or done.hung for done in both) or len(refused) == 2:
        return "fault", f"{name}: {[(done.code, done.last_words()) for done in both]}"
    if any(_BUSY not in done.said for done in refused):
        return "fault", f"{name}: {refused[0].last_words()}"
    return _goes_on(name, place, folder, "refused" if refused else "right")


def _goes_on(name: str, place: Path, folder: Path, outcome: str) -> tuple[str, str]:
    """Whether the command, started again, ends with what the undisturbed one does."""
    done = finished(_line(name, place, folder), folder / "said")
    if done.code:
        return "fault", f"{name} does not go on: {done.last_words()}"
    found = difference(_undisturbed(name, folder), contents(place))
    return ("silent", f"{name}: {found}") if found else (outcome, "")


def _undisturbed(name: str, folder: Path) -> dict:
    place = folder / f"undisturbed-{name.replace(' ', '-')}"
    if not place.is_dir():
        place.mkdir()
        _must(finished(_line(name, _beginning(name, place, folder), folder), folder / "said"))
    return contents(place / "place")


def _beginning(name: str, disk: Path, folder: Path) -> Path:
    """A folder on the disk, with what the command needs."""
    place, needed = disk / "place", COMMANDS[name].needs
    place.mkdir()
    if needed:
        _must(finished(_line(needed, place, folder), folder / "said"))
    return place


def _refused(done: Ended, where: str) -> tuple[str, str]:
    if done.is_one_line and not done.hung:
        return "refused", ""
    return "fault", f"{where}: exit code {done.code}{', hung' * done.hung}: {done.last_words()}"


def _fill(filler: Path, room: int) -> None:
    """Leave `room` bytes on the filler's disk, or none where a command that runs is faster."""
    with suppress(OSError):
        free = os.statvfs(filler.parent)
        filler.write_bytes(b"x" * max(free.f_bavail * free.f_frsize - room, 0))


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    size = f"size={_MEGABYTES}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def _can_mount(folder: Path) -> bool:
    try:
        with _small_disk(folder):
            return True
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False


def _is_over(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _until(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def _must(done: Ended) -> None:
    if done.code:
        raise RuntimeError(f"a command fails undisturbed: {done.said}")


def _line(name: str, place: Path, folder: Path) -> list[str]:
    return COMMANDS[name].line(place.absolute(), (folder / "files").absolute())
