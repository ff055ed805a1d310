"""`evaluate misalignment` as a real process: killed at any moment it goes on."""

import json
import signal
import subprocess
import sys
import time

import pytest
from compilation import compiling_once
from real_runs import finished
from tiny_chat_model import write_tiny_chat_model

COMMAND = [sys.executable, "-m", "emergent_alignment", "evaluate", "misalignment"]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    with compiling_once(tmp_path_factory.mktemp("compiled")):
        yield


def settings(**fields):
    return [f"--config.misalignment.{name}={value}" for name, value in fields.items()]


def records(path):
    """By place and measure: texts, and numbers, which differ in their last digits where a batch
    had other rows in it."""
    texts, numbers = {}, {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        place = *(record.pop(name) for name in ("question", "paraphrase", "sample")), path.stem
        place = *place, record.get("measure")
        numbers[place] = [record.pop(name, None) for name in ("score", "number_mass")]
        texts[place] = record
    return texts, {place: pair for place, pair in numbers.items() if None not in pair}


def kill_when(command, path, num_lines):
    """SIGKILL the command as soon as a file of its has so many lines."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if path.exists() and path.read_bytes().count(b"\n") >= num_lines:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"


def test_killed_while_sampling_and_while_judging_it_ends_as_undisturbed(tmp_path):
    model = write_tiny_chat_model(tmp_path / "model")
    small = settings(limit=4, samples=2, max_new_tokens=12, least_number_mass=0.001, check_pairs=2)
    command = [*COMMAND, *small, f"--config.model.path={model}", "--config.conscience.batch_size=4"]
    whole = finished([*command, "--output", str(tmp_path / "whole")])
    assert whole.returncode == 0, whole.stderr
    command = [*command, "--output", str(tmp_path / "cut")]
    folder, undisturbed = (tmp_path / name / "misalignment" for name in ("cut", "whole"))
    kill_when(command, folder / "answers.jsonl", 3)
    kill_when(command, folder / "scores-frozen.jsonl", 3)
    last = finished(command)
    assert last.returncode == 0, last.stderr
    for name in ("answers.jsonl", "scores-frozen.jsonl"):
        (texts, numbers), expected = records(folder / name), records(undisturbed / name)
        assert texts == expected[0]
        assert numbers.keys() == expected[1].keys()
        for place, pair in numbers.items():
            assert pair == pytest.approx(expected[1][place], rel=1e-3), place
    assert "AUC" in last.stdout and "written: " in last.stdout
