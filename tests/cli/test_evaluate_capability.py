"""`evaluate capability` on the command line: what it prints, and mistakes in one line."""

import json

import pytest
from harness_tasks import only_our_tasks, write_choice_task

from emergent_alignment.cli.main import main


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    only_our_tasks(monkeypatch, tmp_path / "cache")
    return write_choice_task(tmp_path / "tasks", "even_numbers")


def test_the_command_prints_every_metric_and_where_it_is(model, tasks, tmp_path, capsys, fails):
    words = [
        "evaluate", "capability", "--output", tmp_path / "base", f"--config.model.path={model}",
        f"--config.capability.include={tasks}", "--config.capability.tasks=even_numbers",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    path = tmp_path / "base" / "capability" / "result.json"
    assert f"written: {path}" in said.replace("\n", "")
    found = json.loads(path.read_text())["tasks"]["even_numbers"]["metrics"]["acc"]
    assert "even_numbers" in said and f"{found['value']:.3f} [" in said
    assert "--overwrite replaces it" in fails(*words)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--output", "{folder}"), "config.capability.tasks: name one or more"),
        (("--output", "{folder}", "--config.capability.tasks=even"), "there is no such task"),
        (("--output", "{folder}", "--config.capability.include=none"), "config.capability.tasks"),
        (("--output", "{folder}", "--config.capability.include=none",
          "--config.capability.tasks=x"), "none: no such folder"),
        ((), "--run DIR, or --output DIR"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(fails, tasks, tmp_path, words, part):
    words = [word.format(folder=tmp_path / "new") for word in words]
    assert part in fails("evaluate", "capability", *words)
    assert not (tmp_path / "new").exists()
