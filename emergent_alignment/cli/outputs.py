"""Where a command writes: looked at before the work begins, not when it is done."""

from argparse import ArgumentTypeError
from pathlib import Path

from emergent_alignment.errors import UserError


def work_directory(text: str) -> Path:
    """A folder's path, as an argument's type; a bucket's address is not one."""
    if "://" in text:
        raise ArgumentTypeError(
            f"{text} is an address, and runs live in folders: mount the bucket (gcsfuse, for "
            "gs://) and name the folder where it is mounted"
        )
    return Path(text)


def require_new_file(path: Path, *, overwrite: bool | None = None) -> None:
    """Raise UserError where `path` cannot become a file, or is one and `overwrite` is not True
    (None: the command has no such flag). Nothing is made."""
    if path.is_dir():
        raise UserError(f"{path}: there is a folder of this name; name a file")
    if path.exists() and not overwrite:
        remedy = "choose another" if overwrite is None else "--overwrite replaces it"
        raise UserError(f"{path} is there already; {remedy}")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise UserError(f"{path}: {there} is a file, not a folder; choose another place")
