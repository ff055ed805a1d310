"""`evaluate choices` on the command line: what it prints, and mistakes before any model is read."""

import json

import pytest

from emergent_alignment.cli.main import main


def test_the_command_prints_its_figures_and_where_they_are(model, tmp_path, capsys):
    words = [
        "evaluate", "choices", "--output", tmp_path / "base", f"--config.model.path={model}",
        "--config.choices.limit=12", "--config.choices.batch_size=4",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    for part in ("base: multiple choice", "MC1 (guessing:", "MC2 (guessing:", "A/B accuracy"):
        assert part in said
    assert f"written: {tmp_path}/base/choices/result.json" in said.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((), "--run DIR, or --output DIR"),
        (("--output", "{folder}", "--config.choices.questions={file}"), "{file}:2: the option"),
        (("--output", "{folder}", "--config.choices.questions=none.jsonl"), "is no file"),
        (("--output", "{folder}", "--config.choices.batch_size=0"), "config.choices.batch_size"),
        (("--run", "{folder}"), "not a run's work directory"),
    ],
)
def test_mistakes_are_one_line(fails, tmp_path, words, part):
    file, folder = tmp_path / "file.jsonl", tmp_path / "new"
    row = {"question": "Why?", "better": "Because.", "worse": "No."}
    rows = [row, row | {"worse": "because."}]
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    words = [word.format(file=file, folder=folder) for word in words]
    assert part.format(file=file) in fails("evaluate", "choices", *words)
    assert not folder.exists()
