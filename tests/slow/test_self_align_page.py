"""The commands of docs/self_align.md run as they stand, one after another, on the real model (with
the sizes of the short quickstart, and the experiment cut to one step)."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from emergent_alignment.conscience.journal import read_journal

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "self_align.md").read_text("utf-8")
SHORT = {
    "experiment": "training.steps=1 training.batch_size=2 conscience.batch_size=2 "
    "data.max_prompt_tokens=64 data.max_response_tokens=64 sampling.max_new_tokens=8 "
    "calibration.questions=('advice',) calibration.layouts=('quote',) "
    "calibration.polarities=('positive',) calibration.num_selecting=4 "
    "calibration.num_reporting=4 evaluation.limit=4 evaluation.samples=2 "
    "evaluation.max_new_tokens=8 choices.limit=2 choices.batch_size=2 experiment.seeds=(0,)",
    "evaluate": "choices.limit=2 choices.batch_size=2",
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```\n(emergent-alignment .*?)```", PAGE, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the repository's configs in it, in which every command has run."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "configs").symlink_to(ROOT / "configs")
    found = commands()
    assert [command[1] for command in found] == [
        "self-align", "evaluate", "report", "respond", "experiment"
    ]  # fmt: skip
    for _, name, *words in found:
        words = [re.sub(r"quickstart$", "quickstart:short", word) for word in words]
        short = [f"--config.{setting}" for setting in SHORT.get(name, "").split()]
        short += ["--max-new-tokens=8"] if name == "respond" else []
        command = [sys.executable, "-m", "emergent_alignment", name, *words, *short]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, f"{name}: {done.stderr}"
    return folder


def test_the_four_stages_leave_what_the_page_says(folder):
    import datasets

    workdir = folder / "runs" / "aligned"
    for stage, fields in (
        ("1_instructions", {"instruction", "kind", "topic", "source"}),
        ("2_answers", {"prompt", "response", "ended", "kind", "thoughts", "principles"}),
    ):
        rows = datasets.load_dataset(
            "json", data_files=str(workdir / stage / "data.jsonl"), split="train",
            cache_dir=str(folder / "cache"),
        )  # fmt: skip
        assert set(rows.column_names) == fields and len(rows)
        counts = json.loads((workdir / stage / "manifest.json").read_text("utf-8"))["counts"]
        assert counts["made"] == counts["kept"] + sum(counts["dropped"].values())
    for model in ("base", "engraving", "reinforcement"):
        assert (workdir / "evaluation" / model / "choices" / "result.json").is_file()
    page = (workdir / "self_align.html").read_text("utf-8")
    assert page.count("Done, in") == 4 and "base&#39;s" in page


def test_the_conscience_s_pairs_are_an_arm_of_the_experiment(folder):
    """Both arms learn stage 2's rows; one of them reviews what the policy itself answers."""
    root = folder / "runs" / "aligned_experiment" / "seed-0"
    runs = {arm: json.loads((root / arm / "run.json").read_text("utf-8"))
            for arm in ("engraved", "engraved_conscience")}  # fmt: skip
    assert len({run["data"] for run in runs.values()}) == 1
    assert [run["config"]["conscience"]["enabled"] for run in runs.values()] == [False, True]
    assert not read_journal(root / "engraved" / "journal")
    assert read_journal(root / "engraved_conscience" / "journal")
    for arm in ("base", "engraved", "engraved_conscience"):
        assert (root / arm / "choices" / "result.json").is_file()
    assert "MC1" in (root.parent / "experiment.html").read_text("utf-8")
