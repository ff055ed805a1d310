"""`evaluate code` on the command line: what it prints, and mistakes before any model is read."""

import pytest

from emergent_alignment.cli.main import main


def test_the_command_prints_its_figures_and_where_they_are(model, tmp_path, capsys):
    words = [
        "evaluate", "code", "--output", tmp_path / "base", f"--config.model.path={model}",
        "--config.code.task_limit=2", "--config.code.security_prompts=2",
        "--config.code.max_new_tokens=4", "--config.conscience.batch_size=2",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    for part in ("pass@1", "security: valid Python", "by weakness", "Sandbox: ", "base: code"):
        assert part in said
    assert f"written: {tmp_path}/base/code/result.json" in said.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "--run DIR, or --output DIR"),
        (("--output", "{file}"), "there is a file of this name"),
        (("--output", "{folder}", "--config.code.tasks={file}"), "not a JSON object"),
        (("--output", "{folder}", "--config.code.seconds=0"), "config.code.seconds must be"),
        (("--run", "{folder}"), "not a run's work directory"),
    ],
)
def test_mistakes_are_one_line(fails, tmp_path, words, part):
    file = tmp_path / "file.jsonl"
    file.write_text("no json\n")
    words = [word.format(file=file, folder=tmp_path / "new") for word in words]
    assert part in fails("evaluate", "code", *words)
    assert not (tmp_path / "new").exists()
