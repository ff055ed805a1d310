"""How Orbax makes a checkpoint's folder whole: by a last file in it, on every file system, since a
folder of a mounted bucket cannot be renamed in one step (storage/mounts.py).
"""

import json
from pathlib import Path

from orbax.checkpoint.path import atomicity, atomicity_types

_METADATA = "_CHECKPOINT_METADATA"


class _MarkedFolder(atomicity.CommitFileTemporaryPath):
    """A folder with its final name from the start. Versions that renamed folders, some of which
    left no mark, had written when all of it was there, just before they did."""

    @classmethod
    async def validate(cls, temporary_path) -> None:
        """Raise ValidationError for a folder that is whole."""
        if _has_its_time(temporary_path):
            raise atomicity_types.ValidationError(f"{temporary_path} is whole")
        await super().validate(temporary_path)

    @classmethod
    async def validate_final(cls, final_path) -> None:
        """Raise ValidationError for a folder that is not whole."""
        if not _has_its_time(final_path):
            await super().validate_final(final_path)


def _has_its_time(folder) -> bool:
    """Whether a checkpoint's own record says when it was whole."""
    try:
        return bool(json.loads((Path(folder) / _METADATA).read_text())["commit_timestamp_nsecs"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


# Former versions of Orbax (0.11) take any folder without a temporary name for a whole one.
_LOOKS_FOR_MARKS = hasattr(atomicity.CommitFileTemporaryPath, "validate_final")
MarkedFolder: type[atomicity_types.TemporaryPath] | None = (
    _MarkedFolder if _LOOKS_FOR_MARKS else None
)
