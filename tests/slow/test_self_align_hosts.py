"""SELF-ALIGN on two hosts: each does a share of the work, one of them writes, and the stages make
what a single host makes."""

import json
import os
import signal
import sys

import pytest
from compilation import compiling_once
from real_runs import SELF_ALIGN, finished
from tiny_chat_model import write_tiny_chat_model
from two_hosts import all_done, ends, start_two

from emergent_alignment.parallel.watch import LOST_HOST_EXIT_CODE
from emergent_alignment.self_align.stages import stage_folder
from emergent_alignment.self_align.work_directory import STAGES

# A model of random weights never keeps to the format: all that it writes is taken for an answer.
COMMAND = """
import sys
from emergent_alignment.cli.main import main
from emergent_alignment.self_align.answers import stage
stage.read_written = lambda text: stage.Written("helpful", text.strip(), True)
sys.exit(main())
"""


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    with compiling_once(tmp_path_factory.mktemp("compiled")):
        yield


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """command(workdir, **flags): the words that start a host."""
    folder = tmp_path_factory.mktemp("files")
    model = write_tiny_chat_model(folder / "tiny")
    principles, examples = folder / "principles.yaml", folder / "examples.yaml"
    principles.write_text("- {number: 1, name: helpful, text: Help.}")
    examples.write_text('- {instruction: "Tea?", thoughts: helpful, answer: "Yes."}')
    files = {"model.path": model, "self_align.answers.principles": principles}
    files |= {"self_align.answers.examples": examples}
    files |= {"self_align.reinforcement.principles": principles}

    def build(workdir, **changes):
        settings = SELF_ALIGN | files | changes
        flags = [f"--config.{name}={value}" for name, value in settings.items()]
        words = ["self-align", "--workdir", str(workdir), "--no-evaluate", *flags]
        return [sys.executable, "-c", COMMAND, *words]

    return build


def test_two_hosts_make_what_one_makes_also_after_one_was_killed(command, tmp_path):
    alone = finished(command(tmp_path / "one"))
    assert alone.returncode == 0, alone.stderr
    two = command(tmp_path / "two", **{"mesh.data": 2})
    processes = start_two([two, two], devices=1)
    answers = stage_folder(tmp_path / "two", 2).kept.part_file("answers")
    while not answers.exists() and all(process.poll() is None for process in processes):
        signal.sigtimedwait([], 0.02)
    assert answers.exists(), ends(processes)
    os.kill(processes[1].pid, signal.SIGKILL)
    (code, said), _ = ends(processes)
    assert code == LOST_HOST_EXIT_CODE, said
    all_done(start_two([two, two], devices=1))
    for number in (1, 2):
        rows = [stage_folder(tmp_path / name, number).rows() for name in ("one", "two")]
        assert rows[0] == rows[1] and rows[0]
    for number in STAGES:
        counts = [
            json.loads((stage_folder(tmp_path / name, number).path / "manifest.json").read_text())
            for name in ("one", "two")
        ]
        close(counts[0]["counts"], counts[1]["counts"])
    assert (tmp_path / "two" / "self_align.html").is_file()


def close(one, two):
    """The same numbers but for how sums were rounded."""
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            close(value, two[name])
        else:
            assert two[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
