"""More mistakes on the command line. Each is one line with code 2, and leaves nothing behind.

The everyday ones stand in test_main.py.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.configuration import read_config
from emergent_alignment.cli.main import COMMANDS, main

START = "from emergent_alignment.config import default_config\ndef get_config():\n"


def tiny(model) -> list[str]:
    return [
        f"--config.model.path={model}", "--config.data.limit=16", "--config.training.steps=1",
        "--config.data.buckets=1",
        "--config.training.batch_size=2", "--config.sampling.max_new_tokens=4",
    ]  # fmt: skip


def train(model, workdir, *changes) -> list:
    plain = "--config.conscience.enabled=False"
    return ["train", "--workdir", workdir, *tiny(model), plain, *changes]


def test_the_program_runs_as_a_module_and_names_its_commands():
    command = [sys.executable, "-m", "emergent_alignment", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["train"], "--workdir"),
        (["export", "--output", "x", "--format", "zip"], "zip"),
        (["respond", "Hi", "--seed", "x"], "--seed"),
        (["trane"], "trane"),
        (["evaluate", "heldowt"], "known: heldout"),
        (["report", "a", "b", "c"], "b c"),
        ([], "COMMAND"),
    ],
)
def test_wrong_words_are_one_line_that_names_the_help(capsys, words, part):
    with pytest.raises(SystemExit) as ended:
        main(words)
    (said,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and part in said and "--help" in said


def test_a_size_of_the_quickstart_that_is_none_is_an_error(fails, tmp_path):
    path = Path(__file__).parents[2] / "configs/quickstart.py"
    said = fails("train", "--workdir", tmp_path / "run", f"--config={path}:tiny")
    assert "tiny" in said and "short" in said


@pytest.mark.parametrize("command", [["respond", "Hi"], ["chat"]])
@pytest.mark.parametrize(
    ("flag", "instead"),
    [
        ("--config.sampling.max_new_tokens=8", "--max-new-tokens"),
        ("--config.sampling.temperature=0", "--temperature"),
        ("--config.seed=3", "--seed"),
    ],
)
def test_a_flag_that_an_argument_replaces_is_refused_not_ignored(fails, command, flag, instead):
    assert fails(*command, flag).endswith(
        f"{flag.partition('=')[0]}: not read here; say {instead} instead"
    )


@pytest.mark.parametrize(
    "change",
    """seed=x data.limit=-1 lora.rank=-1 lora.alpha=0 lora.targets=() conscience.chain=()
    conscience.enabled=maybe conscience.candidate=all conscience.question=nice
    conscience.layout=talk conscience.polarity=neutral conscience.max_review_tokens=0
    conscience.similarity=0 conscience.threshold=nan conscience.margin=-1 sampling.temperature=-1
    sampling.top_p=0 sampling.top_k=-1 sampling.revision_temperature=-1 sampling.revision_top_p=2
    loss.kind=dpo loss.beta=nan loss.label_smoothing=0.5 optimizer.learning_rate=-1
    optimizer.schedule=step optimizer.warmup_steps=-1 optimizer.b1=1 optimizer.clip_norm=-1
    training.steps=1.5 training.remat=some training.journal_texts=-1 calibration.num_selecting=0
    calibration.num_reporting=0 calibration.questions=('nice',) calibration.layouts=('talk',)
    calibration.polarities=() evaluation.limit=-1 evaluation.samples=-1 evaluation.top_p=0
    evaluation.temperature=-1 evaluation.max_new_tokens=0 evaluation.code_prompts=-1
    evaluation.code_max_new_tokens=0 model.dtype=int8""".split(),
)
def test_a_value_that_cannot_be_meant_is_said_with_its_field(fails, model, tmp_path, change):
    assert change.split("=")[0] in fails(*train(model, tmp_path / "run", f"--config.{change}"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("def get_config(:\n", ":1: SyntaxError"),
        ("import no_such_module\n", ":1: ModuleNotFoundError: No module named 'no_such_module'"),
        (START + "    return 1 / 0\n", ":3: ZeroDivisionError"),
        (START + "    c = default_config()\n    c.training.steps = 'a'\n", ":4: TypeError"),
        (START + "    c = default_config()\n    c.training.step = 3\n", 'Did you mean "steps"'),
        (
            START + "    c = default_config().unlock()\n    del c.seed\n    return c\n",
            "config.seed",
        ),
        (
            START
            + "    c = default_config().unlock()\n    del c.loss\n    c.loss = 3\n    return c\n",
            "config.loss",
        ),
        (START + "    return {'seed': 0}\n", "must return a config"),
        ("seed = 0\n", "no get_config()"),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(fails, tmp_path, text, part):
    path = tmp_path / "mine.py"
    path.write_text(text)
    said = fails("train", "--workdir", tmp_path / "run", "--config", path)
    assert part in said and "Other fields present" not in said
    assert part.startswith("config.") or str(path) in said
    assert not (tmp_path / "run").exists()


def test_the_place_of_config_among_the_words_is_no_matter(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        START.replace("()", "(steps='5')") + "    config = default_config()\n"
        "    config.training.steps = int(steps)\n    return config\n"
    )
    for words in (
        ["--config", str(path), "--config.seed=7"],
        ["--config.seed=7", f"--config={path}"],
        ["--config.seed", "7", "--config", f"{path}:5"],
    ):
        config = read_config(words)
        assert (config.training.steps, config.seed) == (5, 7), words
    assert read_config([f"--config={path}:9"]).training.steps == 9


def test_a_config_file_before_a_prompt_is_not_taken_for_the_prompt(fails, tmp_path):
    said = fails("respond", "--config", tmp_path / "none.py", "Hello")
    assert said.startswith(f"--config: {tmp_path / 'none.py'}: no such file")
    assert "name one file" in fails("respond", "Hello", "--config")
    assert "name one file" in fails("respond", "Hello", "--config=a.py", "--config=b.py")


def test_a_template_that_cannot_render_is_an_error(fails, model, tmp_path):
    for template, part in (
        ("{% if %}", "refuses"),
        ("{{ messages[0].role }}", "leaves the assistant's answer out"),
        ("none.jinja", "none.jinja: cannot be read"),
    ):
        flag = f"--config.model.chat_template={template}"
        assert part in fails(*train(model, tmp_path / "run", flag))
    assert not (tmp_path / "run").exists()


def test_a_conversation_that_the_template_refuses_is_said_before_anything_is_written(
    fails, model, tmp_path
):
    template = (model / "chat_template.jinja").read_text()
    strict = tmp_path / "strict.jinja"
    strict.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        + template
    )
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "Hi there"},'
        ' {"role": "assistant", "content": "Yo"}]}\n'
    )
    changes = f"--config.model.chat_template={strict}", f"--config.data.train={rows}"
    said = fails(*train(model, tmp_path / "run", *changes))
    assert "no system turns" in said and "Hi there" in said
    assert not (tmp_path / "run").exists()


def test_a_file_where_a_folder_should_be_is_left_alone(fails, model, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for words in (
        train(model, file),
        train(model, file / "run"),
        ["quickstart", "--root", file, "--config=quickstart:short", *tiny(model)],
        ["calibrate", "--output", file / "found.json", *tiny(model)],
        ["calibrate", "--output", tmp_path, "--overwrite", *tiny(model)],
        ["evaluate", "--output", file, *tiny(model)],
        ["respond", "Hi", "--output", file / "out.jsonl", *tiny(model)],
        ["export", "--output", file, *tiny(model)],
        ["report", file],
    ):
        assert str(file) in fails(*words) or words[2] is tmp_path
    assert file.read_text() == "mine" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", ['{"id": 1}', "[]", "{", "\ufffd"])
def test_a_run_file_of_another_program_is_no_run(fails, model, tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    for words in (
        train(model, tmp_path),
        ["evaluate", "--run", tmp_path],
        ["export", "--run", tmp_path, "--output", tmp_path / "new"],
    ):
        assert "run.json" in fails(*words)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_sources_that_cannot_be(fails, model, tmp_path):
    assert "no source" in fails(*train(model, tmp_path / "run", "--config.data.train="))
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes('{"prompt": "Grüße"}'.encode("latin-1"))
    said = fails(*train(model, tmp_path / "run", f"--config.data.train={rows}"))
    assert f"{rows}:1: not UTF-8" in said
    same = f"--config.data.train={rows}", f"--config.data.evaluation={rows}"
    assert "what training reads" in fails(
        "evaluate", "--output", tmp_path / "e", *tiny(model), *same
    )
    few = ["calibrate", "--output", tmp_path / "c.json", *tiny(model), "--config.data.limit=3"]
    assert "at least 8" in fails(*few)
    assert list(tmp_path.iterdir()) == [rows]


def test_a_calibration_that_is_none_is_said_before_evaluating(fails, model, tmp_path):
    flag = "--config.conscience.calibration=none.json"
    said = fails("evaluate", "--output", tmp_path / "e", *tiny(model), flag)
    assert "none.json" in said and not (tmp_path / "e").exists()


def test_a_prompt_must_have_words(fails, model, tmp_path):
    flag = f"--config.model.path={model}"
    assert "the prompt is empty" in fails("respond", "  ", flag)
    assert "--prompts" in fails("respond", "Hi", "--prompts", tmp_path / "p.txt", flag)
    assert "--temperature" in fails("respond", "Hi", "--temperature", "-1", flag)


def test_base_models_have_no_adapters_to_export(fails, model, tmp_path):
    said = fails("export", "--output", tmp_path / "new", "--format", "peft", *tiny(model))
    assert "no adapters" in said and not (tmp_path / "new").exists()
    assert "say what to evaluate" in fails("evaluate", *tiny(model))


def test_a_run_stays_with_its_settings_and_its_frozen_model(fails, tmp_path):
    """One run of one step, then everything that must not go on with it."""
    own, run = write_tiny_chat_model(tmp_path / "model"), tmp_path / "run"
    assert main([str(word) for word in train(own, run)]) == 0
    said = fails(*train(own, run, "--config.optimizer.learning_rate=0.5"))
    assert "optimizer.learning_rate (0.0001, now 0.5)" in said
    export = ["export", "--run", run, "--output", tmp_path / "exported"]
    assert "leave --config away" in fails(*export, "--config.seed=1")
    assert main([str(word) for word in export]) == 0
    assert "| steps done | 1 |" in (tmp_path / "exported" / "README.md").read_text()
    kept = (tmp_path / "exported" / "config.json").stat().st_mtime_ns
    assert "exported" in fails(*export)
    assert (tmp_path / "exported" / "config.json").stat().st_mtime_ns == kept
    shutil.rmtree(own)
    write_tiny_chat_model(own, seed=1)
    for words in (
        train(own, run),
        ["evaluate", "--run", run],
        ["respond", "Hi", "--run", run],
        ["export", "--run", run, "--output", tmp_path / "new"],
    ):
        assert "another frozen model" in fails(*words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "words", [["export", "--output"], ["evaluate", "heldout", "--output"], ["train", "--workdir"]]
)
def test_links_in_a_circle_are_one_line(fails, model, tmp_path, words):
    (tmp_path / "one").symlink_to(tmp_path / "one")
    said = fails(*words, tmp_path / "one", f"--config.model.path={model}")
    assert str(tmp_path / "one") in said


def test_what_the_system_says_of_a_place_or_a_device_is_one_line(fails, model, monkeypatch):
    path = f"--config.model.path={model}"
    said = fails("serve", path, "--port", "0", "--journal", "/proc/journal")
    assert said.startswith("/proc/journal: No such file or directory; choose another path")
    monkeypatch.setattr("emergent_alignment.cli.respond.run", no_device)
    assert fails("respond", "Hi", path).endswith(
        "backend 'tpu': no libtpu.so; is JAX_PLATFORMS right?"
    )


def no_device(*arguments):
    raise RuntimeError("Unable to initialize backend 'tpu': no libtpu.so")


@pytest.mark.parametrize("words", [["respond", "a\udcff"], ["train", "--workdir", "\udcff"]])
def test_bytes_that_are_no_text_are_one_line(capsys, words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    (said,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and "is the locale UTF-8?" in said
