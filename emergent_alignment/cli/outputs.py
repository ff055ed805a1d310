"""Where a command writes: looked at before the work begins, not when it is done."""

import os
import tempfile
from argparse import ArgumentTypeError
from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import UNFINISHED


def work_directory(text: str) -> Path:
    """A folder's path, as an argument's type; a bucket's address is not one."""
    if "://" in text:
        raise ArgumentTypeError(
            f"{text} is an address, and runs live in folders: mount the bucket (gcsfuse, for "
            "gs://) and name the folder where it is mounted"
        )
    return Path(text)


def require_writable(directory: Path) -> None:
    """Raise UserError where nothing can be written into `directory`, or where it would have to be
    made. Nothing is left there."""
    there = next(d for d in (directory.absolute(), *directory.absolute().parents) if d.exists())
    try:
        # Named as what a kill may leave is, where it has a name at all.
        tempfile.TemporaryFile(dir=there, prefix=".", suffix=UNFINISHED).close()
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be written ({error.strerror}); make it writable, or choose "
            "another --workdir"
        ) from None


def require_new_file(path: Path, *, overwrite: bool | None = None) -> None:
    """Raise UserError where `path` cannot become a file, or is one and `overwrite` is not True
    (None: the command has no such flag). Nothing is made."""
    if path.is_dir():
        raise UserError(f"{path}: there is a folder of this name; name a file")
    if os.path.lexists(path) and not overwrite:
        remedy = "choose another" if overwrite is None else "--overwrite replaces it"
        raise UserError(f"{path} is there already; {remedy}")
    there = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not there.is_dir():
        raise UserError(f"{path}: {there} is a file or a broken link; choose another place")
