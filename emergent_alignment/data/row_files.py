"""Files of rows, as they stand: JSON lines, a JSON list, a table of cells, lines of text. Each row
comes with the place that it stands at; what it may hold is for its reader.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import decoded, is_file
from emergent_alignment.storage.json_values import UnreadableJson, parse_json

JSON_FILES = (".jsonl", ".ndjson", ".json")
TABLES = {".csv": ",", ".tsv": "\t"}
_WIDEST_CELL = 2**31 - 1


def ending_of(path: Path) -> str:
    """What a file's name ends with, which says how it is read; in small letters."""
    return path.suffix.lower()


def json_lines(path: Path, expected: str, missing: str = "") -> Iterator[tuple[str, Any]]:
    """("file:line", the JSON value) of every line that is not blank, or, of a .json file that holds
    one list (or one object over several lines), of each of its items. Raises UserError for a file
    that is `missing` or broken, with what was `expected` of a row."""
    if not is_file(path):
        raise UserError(f"{path}: no such file; {missing or expected}")
    if ending_of(path) == ".json" and _is_document(path):
        yield from _items(path, expected)
        return
    for number, line in numbered_lines(path):
        yield f"{path}:{number}", _value(line, f"{path}:{number}", expected)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, stripped; \\n alone ends one. Each is decoded on its own: of a
    file that is read as text, a bad byte is found blocks before its line."""
    for number, line in _decoded_lines(path):
        text = line.strip()
        if text:
            yield number, text


def table_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """("file:line", row) of a table whose first line names its columns. A cell is the text that
    stands there, be it None, nan or 007; an empty one says nothing, and is left out. Raises
    UserError for a table that is broken."""
    csv.field_size_limit(_WIDEST_CELL)
    texts = (line for _, line in _decoded_lines(path))
    reader = csv.reader(texts, delimiter=TABLES[ending_of(path)], strict=True)
    columns: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path}:{start}: not a row of a table ({error}); correct the line"
            ) from None
        if cells is None:
            return
        if columns is None and cells:
            columns = _named(cells, f"{path}:{start}")
        elif cells:
            yield f"{path}:{start}", _row(columns, cells, f"{path}:{start}")


def _decoded_lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield number, decoded(line, f"{path}:{number}")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _named(cells: list[str], where: str) -> list[str]:
    twice = [name for name in cells if cells.count(name) > 1]
    if twice:
        raise UserError(f"{where}: the column {twice[0]!r:.60} stands twice; rename one")
    return cells


def _row(columns: list[str], cells: list[str], where: str) -> dict[str, str]:
    if len(cells) != len(columns):
        raise UserError(
            f"{where}: {len(cells)} cells under {len(columns)} columns; quote cells that hold "
            "commas, quotation marks or line ends"
        )
    return {name: cell for name, cell in zip(columns, cells) if cell}


def _value(text: str, where: str, expected: str) -> Any:
    try:
        return parse_json(text)
    except UnreadableJson as error:
        raise UserError(f"{where}: not a JSON object ({error}); {expected}") from None


def _is_document(path: Path) -> bool:
    """Whether the file is one JSON value, and not one a line: it begins with a list, or with an
    object that its first line does not end."""
    for _, line in numbered_lines(path):
        if line.startswith("["):
            return True
        try:
            parse_json(line)
        except UnreadableJson:
            return line.startswith("{") and not line.endswith("}")
        return False
    return False


def _items(path: Path, expected: str) -> Iterator[tuple[str, Any]]:
    """The items of the list that a file holds, each with the line that it begins in."""
    text = decoded(path.read_bytes(), str(path))
    at = _after_blanks(text, 0)
    if text[at] == "{":
        yield f"{path}:1", _value(text, f"{path}:1", expected)
        return
    at, line, told = _after_blanks(text, at + 1), 1, 0
    more = text[at : at + 1] != "]"
    while more:
        line, told = line + text.count("\n", told, at), at
        where = f"{path}:{line}"
        end = _end_of_value(text, at, where, expected)
        yield where, _value(text[at:end], where, expected)
        at = _after_blanks(text, end)
        more = text[at : at + 1] == ","
        if more:
            at = _after_blanks(text, at + 1)
    if text[at : at + 1] != "]" or text[at + 1 :].strip():
        raise UserError(f"{path}:{line}: the list does not end after this item, or more follows it")


def _end_of_value(text: str, at: int, where: str, expected: str) -> int:
    try:
        return json.JSONDecoder().raw_decode(text, at)[1]
    except json.JSONDecodeError as error:
        reason = f"{error.msg}, line {error.lineno}, column {error.colno}"
        raise UserError(f"{where}: not a JSON object ({reason}); {expected}") from None
    except (RecursionError, ValueError):  # nobody means it: the guarded reader says why
        return len(text)


def _after_blanks(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at
