"""Raw text on the command line: what is refused, in one line."""

import pytest

CONFIG = "--config=configs/pretraining.py"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", CONFIG, "--topology", "v5e:4x4"], "there are none of raw text yet"),
        (["train", f"{CONFIG}:tiny", "--workdir", "run"], "no such size"),
        (["evaluate", "corpus", "--run", "nowhere"], "not a run's work directory"),
        (
            ["train", CONFIG, "--workdir", "run", "--config.pretraining.corpus=nowhere.txt"],
            "nowhere.txt: no such file or folder",
        ),
    ],
)
def test_a_mistake_is_one_line(fails, words, message):
    assert message in fails(*words)
