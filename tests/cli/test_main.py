"""The command line: help that teaches, and one clear line for each mistake."""

import asyncio
import json
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from emergent_alignment.cli.main import (
    COMMANDS,
    KINDS,
    keep_compiled_programs,
    leave_out_late_writes,
    main,
)


@pytest.fixture
def broken(model, tmp_path):
    """A copy of the tiny model to break."""
    return shutil.copytree(model, tmp_path / "broken")


def training(model, workdir, *changes):
    return [
        "train", "--workdir", workdir, f"--config.model.path={model}",
        "--config.conscience.enabled=False", "--config.training.steps=1",
        "--config.data.buckets=1",
        "--config.training.batch_size=2", *changes,
    ]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_examples(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"emergent-alignment {command}" in capsys.readouterr().out.split("examples:")[1]


@pytest.mark.parametrize(
    "words", [[command, kind] for command, kinds in KINDS.items() for kind in kinds], ids=" ".join
)
def test_help_of_every_kind_has_its_own_examples_and_names_the_others(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    command, kind = words
    default = next(iter(KINDS[command]))
    examples = said.split("examples:")[1]
    assert f"emergent-alignment {command}" + f" {kind}" * (kind != default) in examples
    assert all(f"  {other} " in said.split("kinds (")[1] for other in KINDS[command])


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--config.optimizer.learning_rat=1", "learning_rate"),
        ("--config.optimzer.learning_rate=1", "optimizer"),
    ],
)
def test_an_unknown_field_is_an_error_with_the_nearest_name(fails, tmp_path, flag, nearest):
    assert nearest in fails("train", "--workdir", tmp_path / "run", flag)


def test_an_unknown_field_in_a_file_is_an_error_with_the_nearest_name(fails, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from emergent_alignment.config import default_config\n"
        "def get_config():\n"
        "    config = default_config().unlock()\n"
        "    config.training.step = 3\n"
        "    return config\n"
    )
    said = fails("train", "--workdir", tmp_path / "run", f"--config={path}")
    assert "config.training.step" in said and "did you mean steps" in said


@pytest.mark.parametrize(
    ("flag", "part"),
    [
        ("--config=nowhere.py", "nowhere.py: no such file"),
        ("--config.training.steps=many", "training.steps"),
        ("--config.training.steps=0", "config.training.steps must be more than 0"),
        ("--config.training.accumulation=3", "does not divide"),
        ("--config.conscience.gate=strict", "known: score, relative"),
        ("--config.lora.targets=('querry',)", "choose among query"),
        ("--config.application=tuning", "known: finetuning"),
        ("--config.data.train=nowhere.jsonl", "nowhere.jsonl: no such file"),
        ("--config.conscience.calibration=no.json", "emergent-alignment calibrate"),
        ("--config.model.path=nowhere.gguf", "nowhere.gguf"),
    ],
)
def test_a_wrong_setting_is_said_before_anything_is_written(fails, model, tmp_path, flag, part):
    workdir = tmp_path / "run"
    changes = [flag, "--config.conscience.enabled=True"]
    assert part in fails(*training(model, workdir, *changes))
    assert not workdir.exists()


GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("", "no rows"),
        ("{not json", "not a JSON object"),
        ('"text"', "found str"),
        ('{"text": "x"}', "found the fields ['text']"),
        (json.dumps({"messages": GOOD["messages"][:1]}), "must be the assistant's answer"),
        (
            json.dumps({"messages": [GOOD["messages"][0], {"role": "assistant", "content": " "}]}),
            "the answer is empty",
        ),
        (json.dumps({"prompt": "x", "chosen": "", "rejected": "y"}), "the answer is empty"),
        (
            json.dumps({"messages": [{"role": "bot", "content": "x"}, GOOD["messages"][1]]}),
            "role 'bot'",
        ),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(fails, model, tmp_path, line, part):
    path, workdir = tmp_path / "rows.jsonl", tmp_path / "run"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n" if line else "")
    said = fails(*training(model, workdir, f"--config.data.train={path}"))
    assert part in said and str(path) in said
    assert not line or f"{path}:2" in said
    assert not workdir.exists()


def test_an_unsupported_family_is_an_error_that_names_the_supported_ones(fails, broken, tmp_path):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    said = fails(*training(broken, tmp_path / "run"))
    assert all(family in said for family in ("gpt2", "llama", "mistral", "qwen2", "qwen3"))


def test_a_tokenizer_without_chat_template_is_an_error_and_can_be_given_one(
    fails, broken, tmp_path
):
    template = broken / "chat_template.jinja"
    given = template.rename(tmp_path / "mine.jinja")
    said = fails(*training(broken, tmp_path / "run"))
    assert "chat_template" in said
    assert not (tmp_path / "run").exists()
    flag = f"--config.model.chat_template={given}"
    assert main([str(word) for word in training(broken, tmp_path / "run", flag)]) == 0


def test_broken_weights_are_an_error_that_names_the_file(fails, broken, tmp_path):
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors" in fails(*training(broken, tmp_path / "run"))
    weights.write_bytes(whole)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"intermediate_size": 65}))
    assert "65" in fails(*training(broken, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_directories_of_others_are_left_alone(fails, model, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    assert "not empty" in fails(*training(model, foreign))
    assert "thesis.txt" in str(list(foreign.iterdir())) and len(list(foreign.iterdir())) == 1
    export = ["export", "--output", foreign, f"--config.model.path={model}"]
    assert str(foreign) in fails(*export)
    for command in (["evaluate"], ["respond", "Hello"], ["export", "--output", tmp_path / "new"]):
        assert "run.json is missing" in fails(*command, "--run", foreign)


def test_nothing_is_written_over(fails, model, tmp_path):
    there = tmp_path / "there.json"
    there.write_text("{}")
    flag = f"--config.model.path={model}"
    assert "--overwrite" in fails("calibrate", "--output", there, flag)
    (tmp_path / "evaluation.json").write_text("{}")
    assert "--overwrite" in fails("evaluate", "--output", tmp_path, flag)
    assert "there already" in fails("respond", "Hello", "--output", there, flag)
    assert there.read_text() == "{}"


def test_respond_needs_prompts(fails, model, tmp_path):
    flag = f"--config.model.path={model}"
    assert "--prompts" in fails("respond", flag)
    assert "no such file" in fails("respond", "--prompts", tmp_path / "none.txt", flag)
    (tmp_path / "empty.txt").write_text("\n")
    assert "no prompts" in fails("respond", "--prompts", tmp_path / "empty.txt", flag)


def test_respond_answers_a_file_of_prompts_and_keeps_the_record(model, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("Hello\nShould I wear a helmet?\n")
    words = [
        "respond", "--prompts", tmp_path / "prompts.txt", "--output", tmp_path / "out.jsonl",
        "--max-new-tokens", "6", f"--config.model.path={model}",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["prompt"][0]["content"] for record in records] == [
        "Hello",
        "Should I wear a helmet?",
    ]
    assert {"draft", "score", "outcome", "revision", "final"} <= records[0].keys()
    assert "final:" in capsys.readouterr().out


@pytest.mark.parametrize("writable", [True, False])
def test_compiled_programs_are_kept_where_the_users_cache_can_be_written(
    tmp_path, monkeypatch, writable
):
    (tmp_path / "file").touch()
    cache = tmp_path / ("cache" if writable else "file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    told = {}
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    keep_compiled_programs()
    assert bool(told) == writable
    assert all(Path(place).is_relative_to(cache) for place in told.values())


def test_a_write_that_ends_after_another_has_failed_says_nothing(monkeypatch):
    import tensorstore

    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    for _ in range(2):
        leave_out_late_writes()

    def ends_late():
        promise, future = tensorstore.Promise.new()
        loop = asyncio.new_event_loop()

        async def wait():
            await future

        waiting = loop.create_task(wait())
        waiting._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        thread = threading.Thread(target=promise.set_result, args=(None,))
        thread.start()
        thread.join()

    ends_late()
    assert told == []
    sys.unraisablehook(SimpleNamespace(exc_type=RuntimeError, exc_value=RuntimeError("Another")))
    assert len(told) == 1, "anything else is told once"
