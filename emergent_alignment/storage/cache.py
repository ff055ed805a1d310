"""Where results that depend on frozen parameters alone are kept, for later runs."""

import hashlib
import json
import os
from pathlib import Path


def cache_path(folder: str, name: str, identity: dict) -> Path:
    """The JSONL file of what `identity` says all of: in `folder`, or, where that is "", in the
    user's cache folder under `name`."""
    text = json.dumps(identity, sort_keys=True, default=str)
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (
        Path(folder or users / "emergent-alignment" / name)
        / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.jsonl"
    )
