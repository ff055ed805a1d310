"""`evaluate misalignment` as a real process on the real model: killed at any moment, it goes on."""

import json
import signal
import subprocess
import sys
import time

from real_runs import finished

COMMAND = [
    sys.executable, "-m", "emergent_alignment", "evaluate", "misalignment",
    "--config.misalignment.limit=2", "--config.misalignment.samples=2",
    "--config.misalignment.max_new_tokens=12", "--config.misalignment.least_number_mass=0.05",
    "--config.conscience.batch_size=2",
]  # fmt: skip


def records(path):
    """By place and measure; scores rounded, since batches of other rows round otherwise."""
    found = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        place = tuple(record.pop(name) for name in ("question", "paraphrase", "sample"))
        for name in ("score", "number_mass"):
            if record.get(name) is not None:
                record[name] = round(record[name], 3)
        found[place, record.get("measure")] = record
    return found


def kill_when(command, ready):
    """SIGKILL the command as soon as `ready()`."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not ready() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"


def test_killed_while_sampling_and_while_judging_it_ends_as_undisturbed(tmp_path):
    whole = finished([*COMMAND, "--output", str(tmp_path / "whole")])
    assert whole.returncode == 0, whole.stderr
    command, folder = [*COMMAND, "--output", str(tmp_path / "cut")], tmp_path / "cut/misalignment"

    def has(name, lines):
        path = folder / name
        return path.exists() and path.read_bytes().count(b"\n") >= lines

    kill_when(command, lambda: has("answers.jsonl", 2))
    kill_when(command, lambda: has("scores-frozen.jsonl", 2))
    last = finished(command)
    assert last.returncode == 0, last.stderr
    for name in ("answers.jsonl", "scores-frozen.jsonl"):
        assert records(folder / name) == records(tmp_path / "whole/misalignment" / name)
    results = [
        json.loads((path / "result-frozen.json").read_text())
        for path in (folder, tmp_path / "whole/misalignment")
    ]
    assert results[0]["not_scored"] == results[1]["not_scored"]
    assert results[0]["overall"]["num_answers"] == 12
    assert "scored" in whole.stdout and str(tmp_path / "whole/misalignment") in whole.stdout
