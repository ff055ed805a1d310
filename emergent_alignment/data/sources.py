"""Where examples come from: bundled scenarios, JSONL files, anything `datasets` can load.

Every row is checked on reading; a bad one is an error that names file, line and remedy.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emergent_alignment.data.messages import Message
from emergent_alignment.data.scenarios import SCENARIOS, load_scenario
from emergent_alignment.errors import UserError
from emergent_alignment.storage.hub_errors import trouble_with_hub

_EXPECTED = (
    'expected {"messages": [{"role": "user", "content": …}, …, {"role": "assistant", …}]} '
    'or {"prompt": …, "chosen": …, "rejected": …} or {"prompt": …, "answer": …}'
)
FIELDS = ("messages", "prompt", "answer", "chosen", "rejected", "kind")


@dataclass(frozen=True)
class Example:
    """One prompt and its known answers.

    prompt    the conversation so far, ending with a user turn
    target    what the task loss learns
    safe      a known good answer, and `harmful` a known bad one, where the row is matched
    kind      the kind of prompt, for holding kinds out
    ended     whether the target ends where it does, or was cut there: then it has no end token
    """

    prompt: tuple[Message, ...]
    target: str
    safe: str | None = None
    harmful: str | None = None
    kind: str = ""
    ended: bool = True

    @property
    def messages(self) -> list[Message]:
        return list(self.prompt)


def load_examples(
    source: str,
    *,
    split: str = "train",
    limit: int = 0,
    columns: str = "",
    every_turn: bool = False,
) -> list[Example]:
    """All examples of a source: the name of a bundled scenario, a .jsonl, .json, .parquet or .csv
    file, or what `datasets.load_dataset(source, split=split)` takes. Of a scenario, any split
    but train is its held-out kinds. `limit` 0 keeps all.

    `columns` says what the source calls our fields: "prompt=question, answer=response". With
    `every_turn` each assistant's turn of a conversation is an example, not the last one alone.

    Raises UserError for a missing, empty or malformed source.
    """
    renamed = parse_columns(columns)
    if not source:
        raise UserError(f"no source of rows is named; bundled are {', '.join(SCENARIOS)}")
    if source in SCENARIOS:
        rows = load_scenario(source, "train" if split == "train" else "heldout")
        examples = [
            Example(
                ({"role": "user", "content": row["prompt"]},),
                row["harmful"],
                safe=row["safe"],
                harmful=row["harmful"],
                kind=row["kind"],
            )
            for row in rows
        ]
    elif Path(source).suffix in (".jsonl", ".json"):
        placed = json_lines(Path(source))
        examples = _examples(placed, renamed, every_turn)
    else:
        placed = ((f"{source} row {i}", row) for i, row in enumerate(_dataset_rows(source, split)))
        examples = _examples(placed, renamed, every_turn)
    if not examples:
        raise UserError(f"{source}: there are no rows in it; {_EXPECTED}, one a line")
    return examples[:limit] if limit else examples


def parse_columns(text: str) -> dict[str, str]:
    """ "prompt=question, answer=response" as {field of ours: column}. Raises UserError for
    anything else, with the fields that there are."""
    columns = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        field, equals, column = (word.strip() for word in part.partition("="))
        if not equals or not column or field not in FIELDS:
            raise UserError(
                f"config.data.columns: {part!r} is not FIELD=COLUMN; fields are {', '.join(FIELDS)}"
            )
        columns[field] = column
    return columns


def _examples(
    placed: Iterable[tuple[str, Any]], columns: dict[str, str], every_turn: bool
) -> list[Example]:
    examples = []
    for where, row in placed:
        row = _renamed(row, columns, where)
        examples += (
            _turns(row, where) if every_turn and "messages" in row else [example_of(row, where)]
        )
    return examples


def _renamed(row: Any, columns: dict[str, str], where: str) -> dict:
    if not isinstance(row, dict):
        raise UserError(f"{where}: found {type(row).__name__}; {_EXPECTED}")
    missing = [column for column in columns.values() if column not in row]
    if missing:
        raise UserError(
            f"{where}: config.data.columns names {missing[0]!r}, and there are "
            f"{', '.join(sorted(map(str, row)))}"
        )
    return row | {field: row[column] for field, column in columns.items()}


def _turns(row: dict, where: str) -> list[Example]:
    """An example for each assistant's turn, with the conversation before it as its prompt."""
    example_of(row, where)  # its mistakes are those of the conversation as a whole
    messages, kind = _messages(row["messages"], where), str(row.get("kind", ""))
    examples = []
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            target = _answer(message["content"], f"{where}: message {place}")
            _check_prompt(messages[:place], f"{where}: message {place}")
            examples.append(Example(tuple(messages[:place]), target, kind=kind))
    return examples


def json_lines(path: Path, expected: str = _EXPECTED) -> Iterator[tuple[str, Any]]:
    """("file:line", the JSON value) of every line that is not blank. Raises UserError for a file
    that is missing or broken, with what was `expected` of a line."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give a .jsonl file, a dataset's name or one of the bundled "
            f"scenarios ({', '.join(SCENARIOS)})"
        )
    for number, line in numbered_lines(path):
        try:
            yield f"{path}:{number}", json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}:{number}: not a JSON object ({error.msg}, column {error.colno}); "
                f"{expected}"
            ) from None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, stripped. Each is decoded on its own: of a file that is read
    as text, a bad byte is found blocks before its line."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8").strip()
            except UnicodeDecodeError:
                raise UserError(
                    f"{path}:{number}: not UTF-8 text; save the file as UTF-8"
                ) from None
            if text:
                yield number, text


def _dataset_rows(source: str, split: str) -> Iterable[dict]:
    import datasets  # slow to import, and only needed here

    arguments = {"path": source, "split": split}
    if Path(source).is_file():
        # A file is one whole data set: `datasets` calls it "train".
        kind = Path(source).suffix.lstrip(".") or "text"
        arguments = {"path": kind, "data_files": source, "split": "train"}
    try:
        return datasets.load_dataset(**arguments)
    except Exception as error:  # of several libraries, each with errors of its own
        reason = trouble_with_hub(error, _remedy(error))
        raise UserError(
            f"{source} (split {split}): neither a file, a bundled scenario "
            f"({', '.join(SCENARIOS)}) nor a data set that `datasets` can load here: {reason}"
        ) from None


def _remedy(error: Exception) -> str:
    text = str(error).lower()
    if "scripts are no longer supported" in text:
        return "save its rows as .jsonl or .parquet, or name another data set"
    if "split" in text:
        return "set config.data.train_split or evaluation_split to one that it has"
    return "correct the name, or give a file"


def example_of(row: dict, where: str) -> Example:
    """The example of a row in our fields. Raises UserError that says `where` for any other."""
    kind = str(row.get("kind", ""))
    if "messages" in row:
        messages = _messages(row["messages"], where)
        if messages[-1]["role"] != "assistant":
            raise UserError(
                f"{where}: the conversation ends in a {messages[-1]['role']} turn; its last "
                "message must be the assistant's answer"
            )
        prompt, target = messages[:-1], _answer(messages[-1]["content"], where)
        _check_prompt(prompt, where)
        return Example(tuple(prompt), target, kind=kind)
    paired = {"prompt", "chosen", "rejected"} <= row.keys()
    if paired or {"prompt", "answer"} <= row.keys():
        prompt = row["prompt"]
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        prompt = _messages(prompt, where)
        _check_prompt(prompt, where)
        if not paired:
            answer = _final(row["answer"], where)
            return Example(tuple(prompt), answer, kind=kind, ended=_ended(row, where))
        chosen, rejected = (_final(row[name], where) for name in ("chosen", "rejected"))
        return Example(tuple(prompt), chosen, safe=chosen, harmful=rejected, kind=kind)
    raise UserError(f"{where}: found the fields {sorted(map(str, row))}; {_EXPECTED}")


def _messages(messages: Any, where: str) -> list[Message]:
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: a conversation must be a list of at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise UserError(f"{where}: message {i} must have the fields role and content")
        if message["role"] not in ("system", "user", "assistant"):
            raise UserError(
                f"{where}: message {i} has the role {message['role']!r}; "
                "known are system, user and assistant"
            )
        if not isinstance(message["content"], str):
            raise UserError(f"{where}: message {i}: content must be a text")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _check_prompt(prompt: list[Message], where: str) -> None:
    if not prompt or prompt[-1]["role"] != "user":
        raise UserError(f"{where}: the message before the answer must be a user turn")
    if not prompt[-1]["content"].strip():
        raise UserError(f"{where}: the user's turn is empty")


def _final(answer: Any, where: str) -> str:
    """A chosen or rejected answer: a text, or a list of messages that ends with it."""
    if isinstance(answer, list):
        last = _messages(answer, where)[-1]
        if last["role"] != "assistant":
            raise UserError(f"{where}: chosen and rejected must end in an assistant turn")
        answer = last["content"]
    return _answer(answer, where)


def _answer(answer: Any, where: str) -> str:
    if not isinstance(answer, str) or not answer.strip():
        raise UserError(f"{where}: the answer is empty; remove the row or fill it in")
    return answer


def _ended(row: dict, where: str) -> bool:
    ended = row.get("ended", True)
    if not isinstance(ended, bool):
        raise UserError(f"{where}: ended must be true or false, not {ended!r}")
    return ended


def load_prompts(path: Path) -> list[list[Message]]:
    """Conversations that wait for an answer: .jsonl with {"prompt": …} or {"messages": …} that
    end in a user turn, or a text file with one prompt a line.

    Raises UserError for a missing, empty or malformed file.
    """
    if path.suffix not in (".jsonl", ".json"):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        prompts = [[{"role": "user", "content": text}] for _, text in numbered_lines(path)]
    else:
        prompts = []
        for where, row in json_lines(path):
            if not isinstance(row, dict) or not {"prompt", "messages"} & row.keys():
                raise UserError(f'{where}: expected {{"prompt": …}} or {{"messages": […]}}')
            messages = row.get("messages", row.get("prompt"))
            if isinstance(messages, str):
                messages = [{"role": "user", "content": messages}]
            messages = _messages(messages, where)
            _check_prompt(messages, where)
            prompts.append(messages)
    if not prompts:
        raise UserError(f"{path}: there are no prompts in it")
    return prompts
