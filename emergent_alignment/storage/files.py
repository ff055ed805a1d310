"""Files that are there whole or not at all, whatever kills the process that writes them."""

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_whole(path: Path, content: str | bytes | Callable[[BinaryIO], None]) -> None:
    """Make `path` hold just the content (text in UTF-8, bytes, or what a function writes to an
    open file), in place of a former file. Folders above it are made. Processes that write the same
    path do not mix: the last one's file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    if isinstance(content, str):
        content = content.encode("utf-8")
    try:
        with partial.open("wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """One JSON value, indented by a space, whole or not at all."""
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
