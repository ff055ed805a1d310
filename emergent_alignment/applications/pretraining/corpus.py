"""Raw text: documents in an order that never changes, readable from any place on.

Four kinds of corpus: the source of the running Python's own standard library, files of text,
parquet files with a column of text, and anything that `datasets` can stream.
"""

import itertools
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from emergent_alignment.data.row_files import JSON_FILES, TABLES, ending_of
from emergent_alignment.errors import UserError
from emergent_alignment.storage.hub_errors import hub_failure
from emergent_alignment.storage.json_values import digest

STANDARD_LIBRARY = "standard_library"
# Folders of the standard library that are no part of it, or only test it.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


@dataclass(frozen=True)
class Document:
    """One text, and where it stands."""

    name: str
    text: str


class Corpus(Protocol):
    """Documents in a fixed order. `identity` is a short text that says which they are."""

    identity: str

    def documents(self, first: int = 0) -> Iterator[Document]:
        """The documents from number `first` on, once through."""


def open_corpus(source: str, *, split: str = "train", column: str = "text", limit: int = 0):
    """The corpus that `source` names: "standard_library", a file or folder of text (a file is a
    document), a .parquet file or a folder of them, or what `datasets.load_dataset(source)` can
    stream. A row's text stands in `column`; `limit` keeps the first documents alone, 0 all.

    Raises UserError where there is nothing of this name, or no documents in it.
    """
    path = Path(source).expanduser()
    if source == STANDARD_LIBRARY:
        corpus = standard_library()
    elif path.exists():
        corpus = _of_path(path, column)
    elif path.suffix or source.startswith((".", "/", "~")) or not source:
        raise UserError(
            f"config.pretraining.corpus: {source or 'nothing'}: no such file or folder; name one, "
            f"a `datasets` name, or {STANDARD_LIBRARY}"
        )
    else:
        corpus = StreamedCorpus(source, split, column)
    return FirstDocuments(corpus, limit) if limit else corpus


def standard_library() -> "TextFiles":
    """The source of the running Python's own standard library, without tests and
    site-packages, in the order of its paths."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [
        path
        for path in root.rglob("*.py")
        if not _LEFT_OUT & set(path.relative_to(root).parts[:-1])
    ]
    return TextFiles(root, sorted(paths))


def _of_path(path: Path, column: str) -> Corpus:
    if path.is_file():
        _refuse_rows(path, [path], column)
        kind = ParquetFiles if path.suffix == ".parquet" else TextFiles
        return kind(path.parent, [path], *([column] if kind is ParquetFiles else []))
    paths = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not paths:
        raise UserError(f"{path}: there are no files in it; name a folder with text")
    rows = [file for file in paths if file.suffix == ".parquet"]
    if not rows:
        _refuse_rows(path, paths, column)
        return TextFiles(path, paths)
    if len(rows) < len(paths):
        other = next(file for file in paths if file.suffix != ".parquet")
        raise UserError(f"{path}: it holds parquet and other files ({other.name}); part them")
    return ParquetFiles(path, rows, column)


def _refuse_rows(path: Path, files: list[Path], column: str) -> None:
    """Raise UserError where all files hold rows: as texts they would be learnt with their marks."""
    if all(ending_of(file) in (*JSON_FILES, *TABLES) for file in files):
        raise UserError(
            f"{path}: rows of a corpus are read from parquet; write it as .parquet with a column "
            f"{column!r}"
        )


class TextFiles:
    """Files of UTF-8 text, each a document."""

    def __init__(self, root: Path, paths: list[Path]):
        self.paths = paths
        self.identity = _identity_of_files(root, paths)

    def documents(self, first: int = 0) -> Iterator[Document]:
        for path in self.paths[first:]:
            try:
                text = path.read_text("utf-8").removeprefix("\ufeff")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: not UTF-8 text (byte {error.start}); convert it, or move it out"
                ) from None
            if "\0" in text:
                raise UserError(f"{path}: not text (it holds zero bytes); move it out")
            yield Document(str(path), text)


class ParquetFiles:
    """Parquet files, each row a document: the text in `column`. Row groups that stand before
    the first document asked for are not read."""

    def __init__(self, root: Path, paths: list[Path], column: str):
        self.paths, self.column = paths, column
        self.identity = f"{_identity_of_files(root, paths)}:{column}"
        for path in paths:
            names = _opened_parquet(path).schema_arrow.names
            if column not in names:
                raise UserError(f"{path}: {_no_column(column, names)}")

    def documents(self, first: int = 0) -> Iterator[Document]:
        for path in self.paths:
            file = _opened_parquet(path)
            if first >= file.metadata.num_rows:
                first -= file.metadata.num_rows
                continue
            row = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if first >= row + size:
                    row += size
                    continue
                for batch in _batches(file, path, group, self.column):
                    for text in batch.column(0).to_pylist():
                        if row >= first:
                            yield _document(f"{path} row {row}", text, self.column)
                        row += 1
            first = 0


class StreamedCorpus:
    """What `datasets` streams. Its identity is name, split, column and first document: no
    stream says what all of it holds."""

    def __init__(self, source: str, split: str, column: str):
        self.source, self.split, self.column = source, split, column
        self._rows = _streamed(source, split)
        start = next(self.documents(), None)
        start = "" if start is None else start.text
        self.identity = digest([source, split, column, start])

    def documents(self, first: int = 0) -> Iterator[Document]:
        rows = self._rows.skip(first) if first else self._rows
        for number, row in enumerate(_readable(rows, self.source), first):
            where = f"{self.source} ({self.split}) row {number}"
            if self.column not in row:
                raise UserError(f"{where}: {_no_column(self.column, list(row))}")
            yield _document(where, row[self.column], self.column)


@dataclass(frozen=True)
class FirstDocuments:
    """The first `limit` documents of a corpus."""

    corpus: Corpus
    limit: int

    @property
    def identity(self) -> str:
        return f"{self.corpus.identity}:{self.limit}"

    def documents(self, first: int = 0) -> Iterator[Document]:
        return itertools.islice(self.corpus.documents(first), max(self.limit - first, 0))


def _identity_of_files(root: Path, paths: list[Path]) -> str:
    """16 hex digits of the files' names and sizes, wherever the folder stands."""
    names = [[path.relative_to(root).as_posix(), path.stat().st_size] for path in paths]
    return digest(names)


def _document(where: str, text: Any, column: str) -> Document:
    if not isinstance(text, str):
        raise UserError(
            f"{where}: the column {column!r} holds {type(text).__name__}, not text; set "
            "config.pretraining.text_column"
        )
    return Document(where, text)


def _no_column(column: str, names: list[str]) -> str:
    return (
        f"there is no column {column!r}, only {', '.join(map(str, names))}; set "
        "config.pretraining.text_column"
    )


def _opened_parquet(path: Path):
    import pyarrow
    import pyarrow.parquet  # slow to import, and only needed here

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a parquet file ({_first_line(error)})") from None


def _batches(file, path: Path, group: int, column: str) -> Iterator:
    """The record batches of a row group. Raises UserError for one that is broken."""
    import pyarrow

    try:
        yield from file.iter_batches(row_groups=[group], columns=[column])
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path}: its rows cannot be read ({_first_line(error)}); write the file again"
        ) from None


def _streamed(source: str, split: str):
    import datasets  # slow to import, and only needed here

    try:
        return datasets.load_dataset(source, split=split, streaming=True)
    except Exception as error:  # of several libraries, each with errors of its own
        before = (
            f"config.pretraining.corpus: {source} (split {split}): neither a file, a folder, "
            f"{STANDARD_LIBRARY} nor a data set that `datasets` can stream here: "
        )
        remedy = "correct the name or the split, or give files"
        raise hub_failure(before, error, remedy) from None


def _readable(rows: Iterable[dict], source: str) -> Iterator[dict]:
    """The rows; a stream that breaks off is an error that says so, never a shorter corpus."""
    try:
        yield from rows
    except (ConnectionError, OSError) as error:
        raise UserError(
            f"{source}: the stream broke off ({_first_line(error)}); run the same command again"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
