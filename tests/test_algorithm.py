"""docs/algorithm.py, the algorithm in one screen, runs, and its page shows it as it is."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_chat_model import write_tiny_chat_model

DOCS = Path(__file__).parents[1] / "docs"
SCRIPT = DOCS / "algorithm.py"


@pytest.fixture(scope="module")
def algorithm():
    spec = importlib.util.spec_from_file_location("algorithm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_it_trains_on_the_task_and_on_its_pairs_with_no_config_and_no_folder(
    algorithm, tmp_path, monkeypatch, capsys
):
    model = write_tiny_chat_model(tmp_path / "model")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    history = algorithm.main(str(model), 4)
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert not list(Path().iterdir())
    share = history[0]["pairs"] / algorithm.PROMPTS
    np.testing.assert_allclose(history[0]["alignment_loss"], share * np.log(2), rtol=1e-5)
    assert sum(step["pairs"] for step in history) > 0
    assert all(step["nonfinite"] == 0 for step in history)
    assert any(step["rewards_margin"] for step in history[1:]), "the policy has not moved"


def test_it_fits_a_screen_and_needs_public_names_alone():
    text = SCRIPT.read_text("utf-8")
    assert len(text.splitlines()) <= 120
    assert set(re.findall(r"emergent_alignment[.\w]*", text)) == {"emergent_alignment"}
    assert "config" not in re.sub(r'""".*?"""|\.config', "", text, flags=re.DOTALL)


def test_its_page_shows_it_as_it_is():
    page = (DOCS / "algorithm.md").read_text("utf-8")
    assert re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1] == SCRIPT.read_text("utf-8")
