"""The files that the package itself writes, changed as people, disks and other programs change
them, and read as a later start reads them."""

import contextlib
import io
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from campaign.own_files import FILES, OwnFile
from campaign.trial import Trial
from emergent_alignment.errors import UserError

TRIALS = 600
_FOREIGN = (None, True, -1, 0.5, "x", "7", [], [[]], {}, {"a": {}}, "\ud800", "\0", 10**30, 1e300)
_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-1e308", "true", '"1"', "[1]")


def trials(count: int, seed: int, folder: Path) -> Iterator[Trial]:
    """`count` changes, the files and the kinds of change taking turns."""
    draws, place = random.Random(seed), folder / "place"
    ways = list(_WAYS)
    for number in range(count):
        name = list(FILES)[number % len(FILES)]
        way = ways[number // len(FILES) % len(ways)]
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        outcome, detail = _tried(FILES[name], way, draws, place)
        yield Trial("files", f"{way}", outcome, f"{name}: {detail}" if detail else "")


def _tried(file: OwnFile, way: str, draws: random.Random, place: Path) -> tuple[str, str]:
    path = file.write(place)
    before = _quietly(file.read, path)
    path.write_bytes(_WAYS[way](path.read_bytes(), draws))
    try:
        found = _quietly(file.read, path)
    except UserError as error:
        said = str(error)
        fits = "\n" not in said and str(place) in said and len(said) < 1000
        return ("refused", "") if fits else ("fault", f"said {said[:200]!r}")
    except Exception as error:
        return "fault", f"{type(error).__name__}: {str(error)[:200]}"
    if file.checked and way in _OF_DISKS and found != before and not _is_beginning(found, before):
        return "silent", f"{str(before)[:100]} was read as {str(found)[:100]}"
    if _holds_nonsense(found):
        return "silent", f"read as {str(found)[:200]}"
    return "right", ""


def _quietly(read: Callable[[Path], Any], path: Path) -> Any:
    with contextlib.redirect_stderr(io.StringIO()):
        return read(path)


def _is_beginning(found: Any, before: Any) -> bool:
    """A file that is cut has lost its last lines, as after a kill."""
    if isinstance(found, list) and isinstance(before, list):
        return found == before[: len(found)] or all(map(_is_beginning, found, before))
    return False


def _holds_nonsense(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_nonsense, value.values()))
    if isinstance(value, list):
        return any(map(_holds_nonsense, value))
    return isinstance(value, float) and not math.isfinite(value)


def _flip(content: bytes, draws: random.Random) -> bytes:
    changed = bytearray(content)
    changed[draws.randrange(len(changed))] ^= 1 << draws.randrange(8)
    return bytes(changed)


def _cut(content: bytes, draws: random.Random) -> bytes:
    return content[: draws.randrange(len(content))]


def _hole(content: bytes, draws: random.Random) -> bytes:
    start = draws.randrange(len(content))
    stop = min(start + draws.randrange(1, 64), len(content))
    return content[:start] + b"\0" * (stop - start) + content[stop:]


def _rubbish(content: bytes, draws: random.Random) -> bytes:
    return draws.choice((b"", b"[]\n", b"null\n", b"{}\n", b"\xff\xfe{}\n", draws.randbytes(300)))


def _nested(content: bytes, draws: random.Random) -> bytes:
    deep = draws.choice((b"[", b'{"a":')) * draws.choice((200, 100_000))
    return draws.choice((deep + b"\n", content.rstrip(b" \t\r\n}") + b',"x":' + deep + b"\n"))


def _line_lost(content: bytes, draws: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[draws.randrange(len(lines))]
    return b"".join(lines)


def _value(content: bytes, draws: random.Random) -> bytes:
    """A value somewhere within is another, or is not there; nobody has made a check of it."""

    def change(holder: Any, name: Any) -> None:
        if isinstance(holder, dict) and draws.random() < 0.2:
            del holder[name]
        else:
            holder[name] = draws.choice(_FOREIGN)

    return _in_json(content, draws, change, lambda value: True)


def _number(content: bytes, draws: random.Random) -> bytes:
    """A number somewhere within is none, or one that nobody means."""
    spelled = draws.choice(_NUMBERS)
    mark = "\x1a number \x1a"

    def change(holder: Any, name: Any) -> None:
        holder[name] = mark

    changed = _in_json(
        content, draws, change, lambda v: isinstance(v, int | float) and not isinstance(v, bool)
    )
    return changed.replace(json.dumps(mark).encode(), spelled.encode())


def _in_json(content: bytes, draws, change, fits) -> bytes:
    try:
        lines = [json.loads(line) for line in content.decode().splitlines()]
        whole = False
    except ValueError:
        try:
            lines, whole = [json.loads(content)], True
        except ValueError:  # arrays
            return _flip(content, draws)
    places = [place for line in lines for place in _places(line) if fits(place[0][place[1]])]
    if places:
        change(*draws.choice(places))
    indent = 1 if whole else None
    return "".join(json.dumps(line, indent=indent) + "\n" for line in lines).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    names = value if isinstance(value, dict) else range(len(value))
    for name in names if isinstance(value, dict | list) else ():
        yield value, name
        if isinstance(value[name], dict | list):
            yield from _places(value[name])


_WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "another value in a field": _value,
    "a number that is none": _number,
    "a flipped bit": _flip,
    "zeros in the middle": _hole,
    "cut off": _cut,
    "a line lost": _line_lost,
    "nested without end": _nested,
    "another file": _rubbish,
}
_OF_DISKS = ("a flipped bit", "zeros in the middle", "cut off")
