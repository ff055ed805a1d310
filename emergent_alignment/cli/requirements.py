"""Whether the installed packages are those that this one says it needs: pip warns of others,
installs them all the same, and an older one fails later, in words of its own."""

import importlib.metadata
from collections.abc import Iterable

from packaging.requirements import Requirement

from emergent_alignment.errors import UserError

_PACKAGE = "emergent-alignment"


def check_requirements(asked: Iterable[str] | None = None) -> None:
    """Raise UserError for the first of `asked` (by default what this package needs, extras left
    out) that is missing, or of another version. Where nothing says what it needs, as in a copied
    folder, nothing is checked."""
    for line in _needed() if asked is None else asked:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            installed = ""
        if not installed or not wanted.specifier.contains(installed, prereleases=True):
            there = f"{wanted.name} {installed} is installed" if installed else "it is missing"
            raise UserError(
                f"{_PACKAGE} needs {wanted.name}{wanted.specifier}, and {there}; "
                f"pip install '{wanted.name}{wanted.specifier}'"
            )


def _needed() -> Iterable[str]:
    try:
        return importlib.metadata.requires(_PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError:
        return ()
