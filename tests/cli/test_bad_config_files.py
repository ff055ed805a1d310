"""A config is a stranger's program, and so are words that ml-collections reads as Python: whatever
they do, the answer is one line."""

import pytest

from emergent_alignment.cli.configuration import read_config
from emergent_alignment.cli.main import main
from emergent_alignment.errors import UserError

START = "from emergent_alignment.config import default_config\ndef get_config():\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise SystemExit(0)", ":1: SystemExit"),
        ("import sys\nsys.exit('enough')", ":2: SystemExit: enough"),
        (START + "    return get_config()", "RecursionError"),
        (START + "    raise LookupError('a\\nb')", ":3: LookupError: a b"),
        ("class Odd(Exception):\n    def __str__(self): 1 / 0\nraise Odd", ":3: Odd"),
        ("x = '\0'", "SyntaxError"),
        (b"x = '\xff'", "SyntaxError"),
        ("(" * 500, "SyntaxError"),
        (
            START + "    c = default_config()\n    c.training.steps = 10 ** 5000\n    return c",
            "steps",
        ),
        (START + "    c = default_config()\n    c.seed = -1\n    return c", "config.seed"),
        (START + "    c = default_config()\n    c.model.path = 'a\\0b'\n    return c", "path"),
        (START + "    c = default_config()\n    c.model.path = '\\ud800'\n    return c", "path"),
        (START + "    return default_config", "must return a config"),
        ("def get_config(size): pass", "TypeError"),
    ],
)
def test_a_config_file_that_fails_is_one_line(tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        read_config(["--config", str(path)])
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "word",
    [
        "--config.experiment.seeds=((((((",
        "--config.experiment.seeds=" + "(" * 5000,
        "--config.seed=" + "9" * 5000,
        "--config.training.steps=1e9",
        "--config.training.steps=2147483648",
        "--config.sampling.temperature=inf",
        "--config.optimizer.epsilon=-1",
        "--config.model.path=a\0b",
        "--config.data.train=\ud800",
        "--config=" + "x" * 5000,
        "--config=a\0b.py",
        "--config.=1",
        "--config.seed.x=1",
    ],
)
def test_a_word_that_cannot_be_meant_is_one_line(word):
    with pytest.raises(UserError) as refused:
        read_config([word])
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--workdir", "a\0b"],
        ["respond", "prompts.jsonl", "--seed", "9" * 12],
        ["respond", "prompts.jsonl", "--temperature", "nan"],
        ["serve", "--port", "9" * 5000],
    ],
)
def test_a_flag_that_cannot_be_meant_is_one_line(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
