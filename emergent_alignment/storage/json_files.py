"""A JSON file of this package's own, read back: one value of a known shape, or one line that says
which file, which field and what to do."""

from pathlib import Path
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import require_regular
from emergent_alignment.storage.json_lines import require_undamaged
from emergent_alignment.storage.json_values import parse_json
from emergent_alignment.storage.shapes import Shape, misfit


def read_json_file(path: Path, shape: Shape, remedy: str) -> Any:
    """The value of a file. Raises UserError, which ends with `remedy`, where it cannot be read, or
    is damaged (where it is one line with a check), or holds no value of `shape`; FileNotFoundError
    where there is none."""
    try:
        require_regular(path)
        content = path.read_bytes()
        require_undamaged(content.rstrip(b"\r\n"))
        value = parse_json(content, finite=True)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {remedy}") from None
    if wrong := misfit(value, shape):
        raise UserError(f"{path}: {wrong}; {remedy}")
    return value
