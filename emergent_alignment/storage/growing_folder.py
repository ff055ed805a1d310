"""A folder of work that goes on where it was: JSONL files that grow, and a note of what each of
them belongs to, so that nothing of other settings is added to it.

Of several hosts all call these methods, and the first one alone writes.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first, together
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.growing_file import GrowingFile, grown_parts
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.json_lines import JsonLinesFolder, trim_torn_line
from emergent_alignment.storage.json_values import plain
from emergent_alignment.storage.locks import locked
from emergent_alignment.storage.shapes import Mapped

# {part: the identity of what it belongs to}
SETTINGS_FILE = "settings.json"
_REMEDY = "choose another --output"


class GrowingFolder(JsonLinesFolder):
    """A folder whose parts are claimed before they grow."""

    def claim(self, part: str, identity: dict, *, overwrite: bool) -> None:
        """Make a part belong to `identity` (JSON values), or find that it does; with `overwrite`
        a part of another identity is thrown away. A line that a kill has cut is taken off.

        Raises UserError for a part of another identity, naming what differs.
        """
        with together():
            if is_first():
                with self._locked():
                    self._claim(part, plain(identity), overwrite)

    def _claim(self, part: str, identity: dict, overwrite: bool) -> None:
        path, owners = self.part_file(part), self._owners()
        if self.is_others(part, identity):
            if not overwrite:
                raise UserError(
                    f"{path}: {_differing(owners.get(part), identity)}; --overwrite drops it, or "
                    "choose another --output"
                )
            for former in grown_parts(path):
                former.unlink()
        if path.exists():
            trim_torn_line(path)
        write_json(self.path / SETTINGS_FILE, owners | {part: identity})

    def is_others(self, part: str, identity: dict) -> bool:
        """Whether there is a part, and it belongs to another identity."""
        there = bool(grown_parts(self.part_file(part)))
        return there and self._owners().get(part) != plain(identity)

    def mend(self, part: str) -> None:
        """Take off the line of a part that a kill has cut."""
        with together():
            if is_first() and self.part_file(part).exists():
                trim_torn_line(self.part_file(part))

    @contextmanager
    def appending(self, part: str) -> Iterator[GrowingFile]:
        """The part's file, open for append_json_lines, which no other process may claim or append
        to meanwhile; other hosts than the first write nothing."""
        if not is_first():
            with GrowingFile(Path(os.devnull)) as file:
                yield file
            return
        with self._locked(), GrowingFile(self.part_file(part)) as file:
            yield file

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.path, f"wait for it, or {_REMEDY}")

    def _owners(self) -> dict:
        """What each part belongs to, by part."""
        path = self.path / SETTINGS_FILE
        try:
            return read_json_file(path, Mapped(dict), _REMEDY)
        except FileNotFoundError:
            return {}


def _differing(before: dict | None, now: dict) -> str:
    """In words, how what a part belongs to differs from what is asked for now."""
    if before is None:
        return "not a file of ours"
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    said = [f"{name} was {before.get(name)!r}, and is {now.get(name)!r} now" for name in names]
    return f"made with other settings ({'; '.join(said[:3])})"
