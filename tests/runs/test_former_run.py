"""A run that another version of this package began and a kill ended goes on with this one.

former_run/ holds what that version wrote (former_run/make.py): the killed run, with a checkpoint
after two steps and five steps of metrics and journal, and the metrics and journal of the same run
where nothing killed it.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from real_runs import STEPS, train_command

from emergent_alignment.cli.main import main
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.data.scenarios import SCENARIOS

FORMER = Path(__file__).with_name("former_run")
CHECKPOINT = 2
# How long things took, and what had to be compiled, is each process's own.
OWN = ("seconds", "tokens_per_second", "model_flops_per_second", "mfu")


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    folder = shutil.copytree(FORMER, tmp_path_factory.mktemp("former") / "copy")
    words = train_command("model", "run")
    rows = [json.loads(line) for line in (FORMER / "harmful_advice.jsonl").open(encoding="utf-8")]
    with pytest.MonkeyPatch.context() as patched:
        # The bundled rows have changed since; a run on other rows is refused.
        patched.setitem(SCENARIOS, "harmful_advice", lambda: rows)
        patched.chdir(folder)
        assert main(words[words.index("train") :]) == 0
    return folder / "run"


def metrics_of(path: Path) -> dict[int, dict]:
    lines = map(json.loads, path.read_text("utf-8").splitlines())
    return {line["step"]: line for line in lines}


def test_it_goes_on_from_its_checkpoint_with_the_metrics_of_a_run_that_was_not_killed(resumed):
    whole, found = metrics_of(FORMER / "whole_metrics.jsonl"), metrics_of(resumed / "metrics.jsonl")
    former = (FORMER / "run/metrics.jsonl").read_text("utf-8")
    added = (resumed / "metrics.jsonl").read_text("utf-8").removeprefix(former).splitlines()
    assert [json.loads(line)["step"] for line in added] == list(range(CHECKPOINT, STEPS))
    for step in range(CHECKPOINT, STEPS):
        assert found[step].keys() >= whole[step].keys(), "a version may log more, never less"
        for name, value in whole[step].items():
            if not name.startswith(OWN):
                np.testing.assert_allclose(found[step][name], value, rtol=1e-4, err_msg=name)


def test_its_journal_says_what_that_of_a_run_that_was_not_killed_says(resumed):
    whole = [
        json.loads(line)
        for line in (FORMER / "whole_journal.jsonl").read_text("utf-8").splitlines()
    ]
    found = read_journal(resumed / "journal")
    assert len(found) == len(whole)
    for ours, theirs in zip(found, sorted(whole, key=lambda row: (row["step"], row["place"]))):
        for name in ("step", "place", "row", "prompt", "candidate", "revision", "outcome"):
            assert ours[name] == theirs[name]
        np.testing.assert_allclose(ours["candidate_score"], theirs["candidate_score"], atol=1e-4)
