"""The image that a cluster is given: built where docker is at hand, else held to what it names."""

import re
import shutil
import subprocess

import pytest
from fake_commands import PROJECT

DOCKERFILE = (PROJECT / "Dockerfile").read_text("utf-8")


def test_what_it_copies_is_there_and_its_extras_are_declared():
    copied = re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE)
    for name in " ".join(copied).split():
        assert (PROJECT / name).exists(), name
    setup = (PROJECT / "setup.py").read_text("utf-8")
    extras = re.findall(r'^    "(\w+)": \[', setup, re.MULTILINE)
    said = re.search(r"EXTRA is (.*),\n# (\w+), or nothing", DOCKERFILE)
    named = [*re.sub(r"\(.*?\)", "", said[1]).replace(" ", "").split(","), said[2]]
    assert named == ["tpu", "cuda", "cuda12"] and set(named) <= set(extras)
    assert "--constraint constraints.txt" in DOCKERFILE


def docker_answers() -> bool:
    asked = ["docker", "info"]
    return (
        bool(shutil.which("docker")) and not subprocess.run(asked, capture_output=True).returncode
    )


@pytest.mark.long
@pytest.mark.skipif(not docker_answers(), reason="docker is not at hand")
def test_it_builds_and_the_command_answers(tmp_path):
    tag = "emergent-alignment:test"
    subprocess.run(["docker", "build", "--tag", tag, str(PROJECT)], check=True, timeout=1800)
    command = ["docker", "run", "--rm", tag, "emergent-alignment", "--version"]
    assert subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.strip()
