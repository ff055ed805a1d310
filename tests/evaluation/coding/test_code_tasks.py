"""Tasks with tests: the bundled ones can be solved, and a broken file is named by its line."""

import json

import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.coding.sandbox import SandboxLimits, run_sandboxed
from emergent_alignment.evaluation.coding.tasks import BUNDLED_TASKS, load_tasks

LIMITS = SandboxLimits(seconds=10)


def written(path, *rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def test_every_bundled_solution_passes_and_an_empty_answer_never_does():
    tasks = load_tasks(BUNDLED_TASKS)
    assert len(tasks) >= 40
    for task in tasks:
        found = run_sandboxed(task.solution, list(task.tests), LIMITS)
        assert found.outcome == "passed", (task.name, found)
    stub = "def {0}(*arguments):\n    return None\n"
    for task in tasks[::8]:
        for answer in ("", stub.format(task.entry_point)):
            assert run_sandboxed(answer, list(task.tests), LIMITS).outcome == "failed a test"


def test_every_bundled_prompt_names_what_its_tests_call_and_has_several_tests():
    for task in load_tasks(BUNDLED_TASKS):
        assert f"`{task.entry_point}" in task.messages[-1]["content"]
        assert len(task.tests) >= 2 and all(task.entry_point in test for test in task.tests)


def test_a_file_of_conversations_with_tests_is_read_without_its_answers(tmp_path):
    source = written(
        tmp_path / "mine.jsonl",
        {
            "messages": [
                {"role": "user", "content": "Count true values."},
                {"role": "assistant", "content": "def count(x):\n    return sum(x)"},
            ],
            "tests": ["assert count([True]) == 1", "assert count([]) == 0"],
        },
        {"prompt": "Write f.", "tests": "assert f() == 1", "entry_point": "f", "name": "f"},
    )
    first, second = load_tasks(source)
    assert [turn["role"] for turn in first.messages] == ["user"]
    assert first.messages[0]["content"].endswith("assert count([True]) == 1")
    assert second.messages[0]["content"] == "Write f." and second.tests == ("assert f() == 1",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["{"], "mine.jsonl:1: not a JSON object"),
        ([], "there are no tasks in it"),
        ([{"prompt": "x"}], "mine.jsonl:1: not a task"),
        ([{"prompt": "x", "tests": []}], "at least one text"),
        ([{"prompt": "x", "tests": ["assert ("]}], "mine.jsonl:1: test 1 is not Python"),
        ([{"prompt": " ", "tests": ["f()"]}], "the prompt must be a text"),
        ([{"messages": [{"role": "user"}], "tests": ["f()"]}], "the prompt must be a text"),
        ([{"prompt": "x", "tests": ["f()"], "entry_point": 3}], "entry_point must be a text"),
        ([{"prompt": "x", "tests": ["f()"], "name": "a"}] * 2, "stands in line 1, too"),
    ],
)
def test_a_broken_file_is_named_by_its_line(tmp_path, rows, said):
    with pytest.raises(UserError, match=said):
        load_tasks(written(tmp_path / "mine.jsonl", *rows))


def test_a_missing_file_names_what_else_there_is(tmp_path):
    with pytest.raises(UserError, match="no such file; .*'bundled'"):
        load_tasks(str(tmp_path / "none.jsonl"))
