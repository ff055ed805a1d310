"""Every command is killed, at random moments and at each kind of file operation, and started again:
it must go on, and end with what the undisturbed one ends with."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from campaign.commands import COMMANDS, before_of, write_files
from campaign.contents import contents, difference
from campaign.dying import counting, dying, read_counts
from campaign.forked import Ended, ended, finished, prepare, started
from campaign.trial import Trial

TRIALS = 345


def trials(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """`count` kills, the commands taking turns."""
    prepare(folder)
    write_files(folder / "files")
    draws, known = random.Random(seed), {}
    for number in range(count):
        name = list(COMMANDS)[number % len(COMMANDS)]
        if name not in known:
            known[name] = _undisturbed(name, folder)
        trial = _killed(name, known[name], draws, folder)
        yield Trial("kills", trial[0], *trial[1:])


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves where nothing kills it, how long it takes, and how many operations of
    each kind on files it makes."""

    contents: dict
    seconds: float
    counts: dict[str, int]


def _undisturbed(name: str, folder: Path) -> Undisturbed:
    place = _fresh(name, folder)
    hooks = counting(place, folder / "counts")
    done = _run(name, place, folder, hooks)
    if done.code:
        raise RuntimeError(f"{name} fails undisturbed: {done.said}")
    return Undisturbed(contents(place), done.seconds, read_counts(folder / "counts"))


def _killed(name: str, known: Undisturbed, draws: random.Random, folder: Path) -> tuple:
    """(case, outcome, detail) of one kill."""
    place, said = _fresh(name, folder), folder / "said"
    kinds = [kind for kind, number in known.counts.items() if number]
    if draws.random() < 0.3:
        moment = draws.uniform(0, known.seconds)
        process = started(_line(name, place, folder), said, before=before_of(name))
        ended(process, said, kill_after=moment)
        case, where = f"{name}, at any moment", f"after {moment:.2f} s"
    else:
        kind = draws.choice(kinds)
        number, after = draws.randrange(known.counts[kind]), draws.random() < 0.5
        _run(name, place, folder, dying(place, kind, number, after=after))
        case = f"{name}, at a file"
        where = f"{'after' if after else 'before'} {kind} {number}"
    left = sorted(str(path.relative_to(place)) for path in place.rglob("*"))
    again = finished(_line(name, place, folder), said, before=before_of(name))
    if again.code and not difference(known.contents, contents(place)):
        return case, "refused", f"{where}: all was done, and it says that it overwrites nothing"
    if again.code:
        return case, "fault", f"{where}: {again.last_words()}; left were {left[-6:]}"
    hidden = [path.name for path in place.rglob(".*.partial")]
    if hidden:
        return case, "fault", f"{where}: hidden files stay: {hidden}"
    if found := difference(known.contents, contents(place)):
        return case, "silent", f"{where}: {found}"
    return case, "right", ""


def _fresh(name: str, folder: Path) -> Path:
    """A folder for one start of a command: empty, or with what it needs."""
    place = folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    needed = COMMANDS[name].needs
    if not needed:
        place.mkdir()
        return place
    kept = folder / f"kept-{needed}"
    if not kept.is_dir():
        place.mkdir()
        done = finished(_line(needed, place, folder), folder / "said")
        assert done.code == 0, done.said
        shutil.copytree(place, kept)
        return place
    shutil.copytree(kept, place)
    return place


def _run(name: str, place: Path, folder: Path, hooks) -> Ended:
    def before() -> None:
        before_of(name)()
        hooks()

    return finished(_line(name, place, folder), folder / "said", before=before)


def _line(name: str, place: Path, folder: Path) -> list[str]:
    return COMMANDS[name].line(place.absolute(), (folder / "files").absolute())
