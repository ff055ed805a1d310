"""Where results are kept for later runs: what depends on frozen parameters alone, say, is computed
once. Whatever is in a cache can be made again."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emergent_alignment.storage.mounts import is_bucket

CACHE_FOLDER = ".cache"
_folders: list[Path] = []  # which take the place of the user's cache; the last one counts


@contextmanager
def cached_beside(workdir: Path | None) -> Iterator[None]:
    """Within it, what would go to the user's cache goes to a folder of `workdir`, where that lies
    on a mounted bucket: the machine that computed it, and its home, may be gone tomorrow."""
    if workdir is None or not is_bucket(workdir):
        yield
        return
    _folders.append(workdir / CACHE_FOLDER)
    try:
        yield
    finally:
        _folders.pop()


def users_cache() -> Path:
    """Where results are kept for later runs; it need not be there."""
    return _folders[-1] if _folders else own_cache()


def own_cache() -> Path:
    """This package's folder in $XDG_CACHE_HOME or ~/.cache; it need not be there. Of a user without
    a home, in the folder for temporary files."""
    cache = os.environ.get("XDG_CACHE_HOME")
    if not cache:
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            cache = tempfile.gettempdir()
    return Path(cache) / "emergent-alignment"


def cache_path(folder: str, name: str, identity: dict) -> Path:
    """The JSONL file of results that depend on just what `identity` says: in `folder`, or ("") in
    the cache under `name`."""
    text = json.dumps(identity, sort_keys=True, default=str)
    digits = hashlib.sha256(text.encode()).hexdigest()[:24]
    return Path(folder or users_cache() / name) / f"{digits}.jsonl"
