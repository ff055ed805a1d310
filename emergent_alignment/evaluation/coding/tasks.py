"""Programming tasks with tests, bundled or from a user's .jsonl file."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from emergent_alignment.data.examples import check_telling
from emergent_alignment.data.messages import Message, read_messages
from emergent_alignment.data.row_files import json_lines
from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import is_file

BUNDLED_TASKS = "bundled"
_EXPECTED = (
    'expected {"prompt": …, "tests": ["assert …", …]}, or "messages" for "prompt"; optional are '
    '"name", "entry_point" and "solution"'
)
_PROMPT = (
    "the prompt must be a text, or messages with role and content whose last (before an answer) is "
    "a user's turn"
)


@dataclass(frozen=True)
class CodeTask:
    """One task.

    name         unique in its file
    messages     what the model is asked, ending with a user turn
    tests        statements that run in the answer's own module, in order; one that raises fails
    entry_point  what the tests call, "" where the file does not say: the first test is then
                 shown to the model, which could not know the name otherwise
    solution     an answer that passes, "" where the file gives none
    """

    name: str
    messages: tuple[Message, ...]
    tests: tuple[str, ...]
    entry_point: str = ""
    solution: str = ""


def load_tasks(source: str) -> list[CodeTask]:
    """All tasks of a .jsonl file, or of the bundled set.

    Raises UserError, with file and line, for a file that is missing or empty, a line that is no
    task, and a test that is not Python.
    """
    if source == BUNDLED_TASKS:
        with resources.as_file(resources.files(__package__).joinpath("tasks.jsonl")) as path:
            return _tasks_of(path)
    path = Path(source)
    if not is_file(path):
        raise UserError(
            f"{source}: no such file; give a .jsonl file of tasks, or {BUNDLED_TASKS!r}"
        )
    return _tasks_of(path)


def _tasks_of(path: Path) -> list[CodeTask]:
    tasks, places = [], {}
    for where, row in json_lines(path, _EXPECTED):
        number = where.rpartition(":")[2]
        task = _task(row, where, number)
        if task.name in places:
            raise UserError(
                f"{where}: the name {task.name!r} stands in line {places[task.name]}, too; "
                "rename one"
            )
        places[task.name] = number
        tasks.append(task)
    if not tasks:
        raise UserError(f"{path}: there are no tasks in it; {_EXPECTED}, one a line")
    return tasks


def _task(row: Any, where: str, number: str) -> CodeTask:
    if not isinstance(row, dict) or "tests" not in row or not {"prompt", "messages"} & row.keys():
        raise UserError(f"{where}: not a task; {_EXPECTED}")
    check_telling(row, where)
    texts = {
        field: row.get(field, default)
        for field, default in (("name", f"line {number}"), ("entry_point", ""), ("solution", ""))
    }
    for field, text in texts.items():
        if not isinstance(text, str):
            raise UserError(f"{where}: {field} must be a text, not {text!r}")
    tests = [row["tests"]] if isinstance(row["tests"], str) else row["tests"]
    if not isinstance(tests, list) or not tests or not all(isinstance(t, str) for t in tests):
        raise UserError(f"{where}: tests must be a list of at least one text")
    for place, test in enumerate(tests, 1):
        try:
            compile(test, f"test {place}", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UserError(f"{where}: test {place} is not Python ({error})") from None
    messages = _messages(row, where)
    if not texts["entry_point"]:
        shown = f"{messages[-1]['content']}\nThis test must pass:\n{tests[0]}"
        messages = [*messages[:-1], {"role": "user", "content": shown}]
    return CodeTask(texts["name"], tuple(messages), tuple(tests), *list(texts.values())[1:])


def _messages(row: dict, where: str) -> list[Message]:
    """The conversation that waits for an answer; known answers at its end are left out."""
    try:
        messages = read_messages(row.get("messages", row.get("prompt")), where)
    except UserError as error:
        raise UserError(f"{error}; {_PROMPT}") from None
    if messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise UserError(f"{where}: {_PROMPT}")
    return messages
