"""Where results are kept for later runs: what depends on frozen parameters alone, say, is computed
once. Whatever is in a cache can be made again."""

import hashlib
import json
import os
import tempfile
from pathlib import Path


def users_cache() -> Path:
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
    the user's cache under `name`."""
    text = json.dumps(identity, sort_keys=True, default=str)
    digits = hashlib.sha256(text.encode()).hexdigest()[:24]
    return Path(folder or users_cache() / name) / f"{digits}.jsonl"
