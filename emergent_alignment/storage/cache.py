"""Where results that depend on frozen parameters alone are kept, for later runs."""

import hashlib
import json
import os
from pathlib import Path

from ml_collections import ConfigDict


def cache_path(config: ConfigDict, name: str, identity: dict) -> Path:
    """The JSONL file of what `identity` says all of: in config.conscience.cache, or in the user's
    cache folder under `name`."""
    text = json.dumps(identity, sort_keys=True, default=str)
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(config.conscience.cache or users / "emergent-alignment" / name)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.jsonl"
