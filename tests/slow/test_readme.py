"""What README.md shows is true: its commands and its ten lines of Python run as they stand, on
the real model (with few rows, short answers, and one step of training)."""

import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from interrupting import metrics_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SHORT = {
    "train": "training.steps=1 training.batch_size=2 conscience.batch_size=2 data.limit=8 "
    "sampling.max_new_tokens=8",
    "calibrate": "calibration.num_selecting=4 calibration.num_reporting=4 "
    "calibration.questions=('advice',) calibration.layouts=('quote',)",
    "evaluate": "evaluation.limit=4 evaluation.samples=2 evaluation.max_new_tokens=8 "
    "conscience.batch_size=2",
}


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def readme_commands() -> list[list[str]]:
    block = next(b for b in code_blocks("") if b.startswith("emergent-alignment train"))
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the repository's configs in it, as a clone has them."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


def test_the_command_line_s_examples_run_one_after_another(folder):
    commands = readme_commands()
    assert {command[1] for command in commands} == {
        "train", "calibrate", "evaluate", "respond", "export", "report"
    }  # fmt: skip
    for _, name, *words in commands:
        short = [f"--config.{setting}" for setting in SHORT.get(name, "").split()]
        short += ["--max-new-tokens=8"] if name == "respond" else []
        done = subprocess.run(
            [sys.executable, "-m", "emergent_alignment", name, *words, *short],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"
    assert (folder / "runs" / "report.html").is_file()
    assert (folder / "exported" / "model.safetensors").is_file()


def test_pairs_of_one_s_own_are_brought_in_five_lines(folder):
    block = next(b for b in code_blocks("") if b.startswith("printf"))
    lines = block.splitlines()
    assert len(lines) == 5
    few = "training.steps=2 training.batch_size=2 data.limit=4 data.max_response_tokens=32"
    for line in lines:
        ours = line.startswith("emergent-alignment")
        short = few.split() if " train " in line else []
        words = [f"{sys.executable} -m {line.replace('-', '_', 1)}" if ours else line]
        done = subprocess.run(
            ["bash", "-c", " ".join([*words, *(f"--config.{setting}" for setting in short)])],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
    alone, both = (metrics_of(folder / "runs" / name) for name in ("dpo", "both"))
    assert alone[0]["alignment_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert alone[1]["alignment_loss"] < alone[0]["alignment_loss"]
    assert both[0]["task_loss"] > 0 and both[0]["rewards_accuracy"] <= 1
    assert (folder / "exported-dpo" / "model.safetensors").is_file()


def test_the_ten_lines_of_python_run(tmp_path):
    (script,) = code_blocks("python")
    assert len(script.splitlines()) == 10
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert "Review(score=" in done.stdout
    assert (tmp_path / "exported" / "config.json").is_file()
