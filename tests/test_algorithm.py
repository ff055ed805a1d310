"""The algorithm on one screen runs as it stands, and its page shows the very script."""

import runpy
from pathlib import Path

import numpy as np
from tiny_chat_model import write_tiny_chat_model

SCRIPT = Path(__file__).parents[1] / "docs" / "algorithm.py"


def test_the_page_shows_the_script():
    assert f"```python\n{SCRIPT.read_text('utf-8')}```\n" in SCRIPT.with_suffix(".md").read_text(
        "utf-8"
    )


def test_it_trains_on_pairs_that_its_conscience_makes(tmp_path):
    model = write_tiny_chat_model(tmp_path / "model")
    history = runpy.run_path(str(SCRIPT))["main"](str(model), 3)
    pairs = [step["pairs"] for step in history]
    assert sum(pairs) > 0
    # Policy and frozen copy are the same at first, and hardly apart after: a pair's loss is log 2.
    losses = [step["alignment_loss"] for step in history]
    np.testing.assert_allclose(losses, np.log(2) * np.array(pairs) / 4, atol=0.01)
    assert not any(step["nonfinite"] for step in history)
    assert history[-1]["task_loss"] != history[0]["task_loss"]
