"""Virtual environments of the libraries that we compare with, each made once, beside the cache.

They never touch the project's own environment. Every version is pinned in requirements/.
"""

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
PEERS = ("torch", "tunix")


def peer_python(name: str) -> Path:
    """The interpreter of a peer's environment, which is made first where it is not there yet.

    Raises SystemExit with one line where it cannot be made.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    directory = cache_directory() / name
    python = directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = directory / "installed"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest() + f" {sys.version_info[:2]}"
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return python
    print(f"Installing {requirements.name} into {directory} …", file=sys.stderr, flush=True)
    venv.create(directory, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    result = subprocess.run([*command, "-r", str(requirements)], check=False)
    if result.returncode:
        raise SystemExit(f"{requirements}: pip could not install it (its message is above)")
    stamp.write_text(wanted, "utf-8")
    return python


def peer_versions(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """The installed versions of some packages in an environment."""
    code = (
        "import importlib.metadata as m, json, sys; "
        "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
    )
    printed = subprocess.run(
        [str(python), "-c", code, *packages], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(printed)


def cache_directory() -> Path:
    """Where the environments live: $XDG_CACHE_HOME or ~/.cache, and our name."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "emergent-alignment" / "benchmarks"
