"""A folder of work that goes on where it was: JSONL files that grow, and what each of
them belongs to, so that nothing of other settings is added to it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first, together
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.json_lines import read_json_lines, trim_torn_line

ANSWERS = "answers"
SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Kept:
    """The folder at `path`; a part is the file PART.jsonl in it, such as `answers`."""

    path: Path

    def lines(self, part: str) -> Path:
        """The file of a part."""
        return self.path / f"{part}.jsonl"

    def claim(self, part: str, identity: dict, *, overwrite: bool) -> None:
        """Make a part belong to `identity` (plain JSON), or find that it does; with `overwrite`
        a part of another identity is thrown away. A line that a kill has cut is taken off.

        Raises UserError for a part of another identity, naming what differs.
        """
        with together():
            if is_first():
                self._claim(part, json.loads(json.dumps(identity)), overwrite)

    def _claim(self, part: str, identity: dict, overwrite: bool) -> None:
        path, settings = self.lines(part), self._settings()
        if self.is_others(part, identity):
            if not overwrite:
                raise UserError(
                    f"{path}: {_differing(settings.get(part), identity)}; --overwrite drops it, or "
                    "choose another --output"
                )
            path.unlink()
        if path.exists():
            trim_torn_line(path)
        write_json(self.path / SETTINGS_FILE, settings | {part: identity})

    def mend(self, part: str) -> None:
        """Take off the line of a part that a kill has cut."""
        with together():
            if is_first() and self.lines(part).exists():
                trim_torn_line(self.lines(part))

    def is_others(self, part: str, identity: dict) -> bool:
        """Whether there is a part, and it belongs to another identity."""
        before, now = self._settings().get(part), json.loads(json.dumps(identity))
        return self.lines(part).exists() and before != now

    def records(self, part: str) -> Iterator[dict]:
        """The records of a part, in the order in which they were written."""
        return read_json_lines(self.lines(part))

    @contextmanager
    def appending(self, part: str) -> Iterator[RawIOBase]:
        """The part's file, open for append_json_lines; other hosts than the first write nothing."""
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.lines(part) if is_first() else Path(os.devnull)
        with path.open("ab", buffering=0) as file:
            yield file

    def _settings(self) -> dict:
        path = self.path / SETTINGS_FILE
        if not path.exists():
            return {}
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: cannot be read ({error}); choose another --output") from None
        if not isinstance(found, dict):
            raise UserError(f"{path}: not a file of ours; choose another --output")
        return found


def _differing(before: dict | None, now: dict) -> str:
    if before is None:
        return "not a file of ours"
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    said = [f"{name} was {before.get(name)!r}, and is {now.get(name)!r} now" for name in names]
    return f"made with other settings ({'; '.join(said[:3])})"
