"""What a SELF-ALIGN stage is given and gives back: folders, their manifests, who owns them.

A stage's folder holds work in progress (`kept`, or a training run in `run/`), its result
data.jsonl, and last of all manifest.json: a folder with one is done.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emergent_alignment import __version__
from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first, together
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.runs.workdir import differences
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.self_align.work_directory import MANIFEST, StagePaths, stage_paths
from emergent_alignment.storage.files import is_empty, write_json
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.json_lines import read_json_lines, write_json_lines
from emergent_alignment.storage.json_values import digest, plain
from emergent_alignment.storage.shapes import Number, Optional, OrNull, Text

_REMEDY = "choose another --workdir"
_MANIFEST = {
    "version": Optional(Text()),
    "counts": dict,
    "examples": [dict],
    "data": OrNull(Text()),
    "seconds": Optional(Number(0)),
}


@dataclass(frozen=True)
class StageResult:
    """What a stage made: `counts`, the funnel {"made", "kept", "dropped": {rule: number}, …};
    `examples`, what the report shows of it; both plain JSON."""

    counts: dict[str, Any]
    examples: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class StageFolder(StagePaths):
    """The folder of one stage, to work in."""

    @property
    def kept(self) -> GrowingFolder:
        """JSONL files that grow as the stage works, and survive a kill."""
        return GrowingFolder(self.path)

    def manifest(self) -> dict:
        """What the finished stage says of itself. Raises UserError where it is not finished, or
        its manifest cannot be read, or is of other data than lie beside it."""
        try:
            manifest = read_json_file(self.manifest_file, _MANIFEST, _REMEDY)
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: this stage is not finished ({MANIFEST} is missing); run "
                "`emergent-alignment self-align` on it first"
            ) from None
        if manifest["data"] != digest_of(self.data):
            raise UserError(
                f"{self.data}: is not what its {MANIFEST} says; put the file back, or choose "
                "another --workdir"
            )
        return manifest

    def made_digest(self) -> str:
        """16 hex digits of what the finished stage made and how, but for how long it took."""
        made = {name: value for name, value in self.manifest().items() if name != "seconds"}
        return digest(made, sort_keys=True)

    def write_rows(self, rows: Iterable[dict]) -> None:
        """data.jsonl, whole or not at all, by the first host."""
        with together():
            if is_first():
                write_json_lines(self.data, rows, ensure_ascii=False)

    def rows(self) -> list[dict]:
        """The rows of data.jsonl."""
        return list(read_json_lines(self.data))

    def claim(self, identity: dict) -> None:
        """Make the folder this stage's, or find that it is. Raises UserError where it was begun
        or finished with another identity (what differs is named), or holds something else."""
        with together():
            if is_first():
                self._claim(identity)

    def _claim(self, identity: dict) -> None:
        path = self.claim_file
        identity = plain(identity)
        if not path.exists():
            if self.path.exists() and not is_empty(self.path):
                raise UserError(
                    f"{self.path}: not empty, and no stage of ours; choose another --workdir"
                )
            write_json(path, identity)
            return
        before = read_json_file(path, dict, _REMEDY)
        differing = [
            f"{name} was {old!r}, and is {new!r} now"
            for name, old, new in differences(before, identity)
        ]
        if differing:
            raise UserError(
                f"{self.path}: made with other settings or from other data: "
                f"{'; '.join(differing[:5])}. Go back to them, or choose another --workdir"
            )

    def finish(self, identity: dict, result: StageResult, seconds: float) -> None:
        """Write the manifest: from here on the stage is done."""
        record = {
            "version": __version__,
            **identity,
            "counts": result.counts,
            "examples": result.examples,
            "data": digest_of(self.data),
            "seconds": round(seconds, 1),
        }
        with together():
            if is_first():
                write_json(self.manifest_file, record)


@dataclass(frozen=True)
class StageRun:
    """What a stage works with.

    config   all settings
    folder   its own
    inputs   the finished earlier stages, by number
    setup    the base model
    """

    config: SelfAlignConfig
    folder: StageFolder
    inputs: dict[int, StageFolder]
    setup: Setup


def stage_folder(workdir: Path, number: int) -> StageFolder:
    """Where a stage of a work directory lives: WORKDIR/2_answers."""
    return StageFolder(stage_paths(workdir, number).path)


def digest_of(path: Path) -> str | None:
    """16 hex digits of a file's bytes; None where there is no file."""
    if not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
