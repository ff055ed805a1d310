"""Where examples come from: bundled scenarios, files of rows, anything `datasets` can load.

Every row is checked on reading; a bad one is an error that names file, line and remedy. What a row
may hold is said in `examples`.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emergent_alignment.data.examples import (
    EXPECTED,
    PROMPTS,
    Example,
    example_of,
    prompt_of,
    turns_of,
)
from emergent_alignment.data.messages import Message
from emergent_alignment.data.pair_rows import NoPair, is_paired, row_pairs, with_prompt
from emergent_alignment.data.row_files import (
    JSON_FILES,
    TABLES,
    ending_of,
    json_lines,
    numbered_lines,
    table_rows,
)
from emergent_alignment.data.scenarios import SCENARIOS, load_scenario
from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import is_file
from emergent_alignment.storage.hub_errors import hub_failure, trouble_with_file

_MISSING = (
    f"give a .jsonl file, a dataset's name or one of the bundled scenarios ({', '.join(SCENARIOS)})"
)
PAIRED = (
    'expected {"prompt": …, "chosen": …, "rejected": …}, or chosen and rejected with one beginning'
)
TIED = "are ties"
# Files that `datasets` reads, and what it calls them.
_OF_DATASETS = {".parquet": "parquet", ".arrow": "arrow"}
FIELDS = ("messages", "prompt", "answer", "chosen", "rejected", "kind")


@dataclass(frozen=True)
class Stream:
    """A source that is read in order, and no further than `rows`; each next row is drawn among
    `buffer` of them by `seed` (0: as they come). The same rows come in the same order each time."""

    rows: int
    buffer: int = 0
    seed: int = 0


def load_examples(
    source: str,
    *,
    split: str = "train",
    limit: int = 0,
    columns: str = "",
    every_turn: bool = False,
    ignored: str = "",
    whole: bool = False,
    stream: Stream | None = None,
) -> list[Example]:
    """All examples of a source: the name of a bundled scenario, a .jsonl, .json, .parquet, .csv or
    .tsv file, or what `datasets.load_dataset(source, split=split)` takes. Of a scenario, any split
    but train is its held-out kinds. `limit` 0 keeps all.

    `columns` says what the source calls our fields: "prompt=question, answer=response"; a dot leads
    into nested objects and lists, as in "answer=responses.0.text". With
    `every_turn` each assistant's turn of a conversation is an example, not the last one alone, but
    for those that the row says are not learnt. Columns that are `ignored` ("tools, weight") are
    taken for absent. Read `whole`, examples have the tools, calls and parts of contents that rows
    have, and are to be written out (data/written_out.py); otherwise such rows are refused. With
    `stream` a source that `datasets` takes is not fetched whole.

    Raises UserError for a missing, empty or malformed source.
    """
    wanted = _Wanted(parse_columns(columns), every_turn, _words(ignored), whole=whole)
    if not source:
        raise UserError(f"no source of rows is named; bundled are {', '.join(SCENARIOS)}")
    if source in SCENARIOS:
        examples = _of_scenario(source, split)
    else:
        rows = _rows(source, split, stream)
        examples = [one for where, row in rows for one in wanted.examples(row, where)]
    if not examples:
        raise UserError(f"{source}: there are no rows in it; {EXPECTED}, one a line")
    return examples[:limit] if limit else examples


@dataclass(frozen=True)
class LoadedPairs:
    """The pairs of a source: examples that have both sides. `left_out` says of rows that are well
    formed and make no pair how many there are of a kind, and where the first one stands."""

    examples: list[Example]
    left_out: dict[str, tuple[int, str]]


def load_pairs(
    source: str,
    *,
    split: str = "train",
    limit: int = 0,
    columns: str = "",
    ignored: str = "",
    whole: bool = False,
    stream: Stream | None = None,
) -> LoadedPairs:
    """All pairs of a source of {"prompt", "chosen", "rejected"}, as `load_examples` names sources;
    `limit` 0 keeps all. Without a prompt it is what both answers begin with; of several rejected
    answers each makes a pair with the chosen one; a tie makes none. Of prompts that are read
    `whole`, and of a `stream`, see `load_examples`; answers are texts.

    Raises UserError for a missing, empty or malformed source.
    """
    setting = "config.data.preference_columns"
    wanted = _Wanted(parse_columns(columns, setting), False, _words(ignored), setting, whole)
    if source in SCENARIOS:
        examples = _of_scenario(source, split)
        return LoadedPairs(examples[:limit] if limit else examples, {})
    examples: list[Example] = []
    left_out: dict[str, tuple[int, str]] = {}
    for where, row in _rows(source, split, stream):
        for one in wanted.pairs(row, where):
            if isinstance(one, Example):
                examples.append(one)
            else:
                number, first = left_out.get(one.reason, (0, where))
                left_out[one.reason] = number + 1, first
        if limit and len(examples) >= limit:
            break
    if not examples:
        raise UserError(f"{source}: there are no pairs in it; {PAIRED}, one a line")
    return LoadedPairs(examples[:limit] if limit else examples, left_out)


def _of_scenario(name: str, split: str) -> list[Example]:
    return [
        Example(
            ({"role": "user", "content": row["prompt"]},),
            row.get("target", row["harmful"]),
            safe=row["safe"],
            harmful=row["harmful"],
            kind=row["kind"],
        )
        for row in load_scenario(name, "train" if split == "train" else "heldout")
    ]


def parse_columns(text: str, setting: str = "config.data.columns") -> dict[str, str]:
    """ "prompt=question, answer=response" as {field of ours: column}. Raises UserError that names
    the `setting` for anything else, with the fields that there are."""
    columns = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        field, equals, column = (word.strip() for word in part.partition("="))
        if not equals or not column or field not in FIELDS:
            raise UserError(
                f"{setting}: {part!r} is not FIELD=COLUMN; fields are {', '.join(FIELDS)}"
            )
        columns[field] = column
    return columns


def _words(text: str) -> frozenset[str]:
    return frozenset(filter(None, (part.strip() for part in text.split(","))))


def _rows(source: str, split: str, stream: Stream | None) -> Iterable[tuple[str, Any]]:
    """Where each row of a source stands, and the row."""
    path = Path(source)
    ending = ending_of(path)
    if ending in JSON_FILES:
        return json_lines(path, EXPECTED, _MISSING)
    if not is_file(path) and ending in (*TABLES, *_OF_DATASETS):
        raise UserError(f"{source}: no such file; {_MISSING}")
    if ending in TABLES:
        return table_rows(path)
    if is_file(path) and ending not in _OF_DATASETS:
        known = ", ".join((*JSON_FILES, *TABLES, *_OF_DATASETS))
        raise UserError(f"{source}: no file of rows by its name; they end in {known}")
    rows = _dataset_rows(source, split, stream)
    return ((f"{source} row {i}", _as_written(row)) for i, row in enumerate(rows))


def _as_written(row: dict) -> dict:
    """A table's row without the fields within its objects that it has only because other rows have
    them: a tool's call would be learnt with every argument of all other tools."""
    return {name: _without_nothing(value) for name, value in row.items()}


def _without_nothing(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nothing(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: _without_nothing(item) for name, item in value.items() if item is not None}


@dataclass(frozen=True)
class _Wanted:
    """What is read of each row: see `load_examples`."""

    columns: dict[str, str]
    every_turn: bool
    ignored: frozenset[str]
    setting: str = "config.data.columns"
    whole: bool = False

    def examples(self, row: Any, where: str) -> list[Example]:
        """What is learnt of a row. Of several rejected answers the first one stands for them."""
        row = self._with_prompt(row, where)
        if isinstance(row, NoPair):
            raise UserError(f"{where}: answers of this row {row.reason}; remove it")
        if self.every_turn and "messages" in row:
            turns = turns_of(row, where, whole=self.whole)
            return [replace(example, where=where) for example in turns]
        if is_paired(row):
            rows = row_pairs(row, where)
            row = next(filter(is_paired, rows), rows[0])
        return [replace(example_of(row, where, whole=self.whole), where=where)]

    def pairs(self, row: Any, where: str) -> list[Example | NoPair]:
        """The pairs of a row, and what makes none."""
        row = self._with_prompt(row, where)
        if isinstance(row, NoPair):
            return [row]
        if not is_paired(row) or row.get("messages") is not None:
            raise UserError(f"{where}: found the fields {sorted(map(str, row))}; {PAIRED}")
        return [
            replace(example_of(one, where, whole=self.whole), where=where)
            if is_paired(one)
            else NoPair(TIED)
            for one in row_pairs(row, where)
        ]

    def _with_prompt(self, row: Any, where: str) -> dict | NoPair:
        return with_prompt(self._renamed(row, where), where)

    def _renamed(self, row: Any, where: str) -> dict:
        """The row in our fields, of which the telling ones are checked."""
        if not isinstance(row, dict):
            raise UserError(f"{where}: found {type(row).__name__}; {EXPECTED}")
        read = {field: _value_at(row, column) for field, column in self.columns.items()}
        missing = [self.columns[field] for field, value in read.items() if value is _MISSING_VALUE]
        if missing:
            raise UserError(
                f"{where}: {self.setting} names {missing[0]!r}, and there are "
                f"{', '.join(sorted(map(str, row)))}"
            )
        of_columns = {name for column in self.columns.values() for name in _names_of(column)}
        kept = {k: v for k, v in row.items() if k not in self.ignored | of_columns}
        row = kept | read
        return _completed(row, where)


def _completed(row: dict, where: str) -> dict:
    """The row with what the field calls a completion as its answer."""
    completion, answer = row.get("completion"), row.get("answer")
    if completion is None:
        return row
    if answer not in (None, completion):
        raise UserError(
            f"{where}: completion stands beside another answer; remove one of them, or name it in "
            "config.data.ignored"
        )
    return row | {"answer": completion}


_MISSING_VALUE = object()


def _names_of(column: str) -> tuple[str, str]:
    """A column, and the one that it may be nested in."""
    return column, column.partition(".")[0]


def _value_at(row: dict, column: str) -> Any:
    """The value of a column; of "a.b.0" what stands there within nested objects and lists."""
    if column in row:
        return row[column]
    value: Any = row
    for name in column.split("."):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _MISSING_VALUE
    return value


def _dataset_rows(source: str, split: str, stream: Stream | None) -> Iterable[dict]:
    import datasets  # slow to import, and only needed here

    arguments: dict[str, Any] = {"path": source, "split": split}
    if is_file(source):
        # A file is one whole data set: `datasets` calls it "train".
        kind = _OF_DATASETS[ending_of(Path(source))]
        arguments = {"path": kind, "data_files": source, "split": "train"}
    try:
        if stream is None:
            return datasets.load_dataset(**arguments)
        rows = datasets.load_dataset(**arguments, streaming=True)
        if stream.buffer:
            rows = rows.shuffle(seed=stream.seed, buffer_size=stream.buffer)
        return list(itertools.islice(rows, stream.rows))  # here, where what fails is told
    except Exception as error:  # of several libraries, each with errors of its own
        if is_file(source):
            reason = trouble_with_file(error, _remedy(error))
            raise UserError(f"{source}: the file cannot be read here: {reason}") from None
        before = (
            f"{source} (split {split}): neither a file, a bundled scenario "
            f"({', '.join(SCENARIOS)}) nor a data set that `datasets` can load here: "
        )
        raise hub_failure(before, error, _remedy(error)) from None


def _remedy(error: Exception) -> str:
    text = str(error).lower()
    if "scripts are no longer supported" in text:
        return "save its rows as .jsonl or .parquet, or name another data set"
    if "split" in text:
        return "set config.data.train_split or evaluation_split to one that it has"
    return "correct the name, or give another file"


def load_prompts(path: Path) -> list[list[Message]]:
    """Conversations that wait for an answer: .jsonl with {"prompt": …} or {"messages": …} that
    end in a user turn, a table with a column `prompt`, or a text file with one prompt a line.

    Raises UserError for a missing, empty or malformed file.
    """
    ending = ending_of(path)
    if ending not in JSON_FILES and not is_file(path):
        raise UserError(f"{path}: no such file")
    if ending in TABLES:
        prompts = [prompt_of(row, where) for where, row in table_rows(path)]
    elif ending not in JSON_FILES:
        prompts = [[{"role": "user", "content": text}] for _, text in numbered_lines(path)]
    else:
        prompts = [prompt_of(row, where) for where, row in json_lines(path, PROMPTS, PROMPTS)]
    if not prompts:
        raise UserError(f"{path}: there are no prompts in it")
    return prompts
