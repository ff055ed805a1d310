"""One process at a time works in a folder, and a killed one keeps nobody out."""

import os
import subprocess
import sys

import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.storage.locks import LOCK_FILE, locked

HOLDING = """
import os, pathlib, signal, sys
from emergent_alignment.storage.locks import locked

with locked(pathlib.Path(sys.argv[1]), "wait"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_in_one_line_that_names_the_first(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError) as refused, locked(tmp_path, "choose another"):
            pass
        said = str(refused.value)
        assert said.startswith(f"{tmp_path}: another process works in it (process {other.pid} on ")
        assert said.endswith("; choose another") and "\n" not in said
        other.kill()
        other.wait()
    assert (tmp_path / LOCK_FILE).exists(), "what a kill leaves"
    with locked(tmp_path, "choose another"):
        pass
    assert not list(tmp_path.iterdir())


def test_it_may_be_locked_again_and_by_nobody_else_of_the_same_process(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "new", "wait"):
            with pytest.raises(UserError, match=f"process {os.getpid()}"):
                with locked(tmp_path / "new", "wait"):
                    pass


def test_a_file_system_without_locks_has_none(tmp_path, monkeypatch):
    import fcntl

    def without(descriptor, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with locked(tmp_path, "wait"), locked(tmp_path, "wait"):
        pass
