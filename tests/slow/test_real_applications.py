"""The applications beside fine-tuning and an evaluation, cut short, on the real model, as
processes."""

import json
import subprocess
import sys
from pathlib import Path

from real_runs import finished, wait_for_step

from emergent_alignment.errors import STOPPED_EXIT_CODE

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "emergent_alignment"]


def test_adversarial_training_is_stopped_and_resumed_and_its_attacks_are_evaluated(tmp_path):
    config, workdir = f"--config={ROOT}/configs/adversarial.py:short", tmp_path / "run"
    command = [*COMMAND, "train", config, "--workdir", str(workdir)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for_step(workdir, 0, process)
        process.terminate()
        _, said = process.communicate()
    assert process.returncode == STOPPED_EXIT_CODE, said
    again = finished(command)
    assert again.returncode == 0, again.stderr
    steps = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert sorted({line["step"] for line in steps}) == [0, 1, 2]
    assert not any(line["nonfinite"] for line in steps)
    assert len(list((workdir / "pools").glob("round-*.json"))) == 2
    evaluated = finished([*COMMAND, "evaluate", "attacks", "--run", str(workdir), config])
    assert evaluated.returncode == 0, evaluated.stderr
    found = json.loads((workdir / "attacks" / "result.json").read_text())
    for when in ("before", "after"):
        for rate in ("attack_success", "over_refusal"):
            assert found[when][rate]["n"] == 4 and found[when][rate]["low"] <= 1


SHORT = "limit=1 samples=1 max_new_tokens=8 check_pairs=1"


def test_it_is_asked_for_its_misalignment_and_judges_itself(tmp_path):
    done = finished(
        [*COMMAND, "evaluate", "misalignment", "--output", str(tmp_path)]
        + [f"--config.misalignment.{setting}" for setting in SHORT.split()]
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "misalignment" / "result-frozen.json").read_text())
    assert result["overall"]["num_answers"] == 3
    missing = result["not_scored"]["aligned"]
    assert missing["share"]["n"] == 3
    assert sum(missing["reasons"].values()) == round(3 * missing["share"]["value"])
