"""What is written is there whole or not at all, whatever kills the process that writes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emergent_alignment.config import Config
from emergent_alignment.errors import UserError
from emergent_alignment.runs.workdir import claim
from emergent_alignment.self_align.stages import stage_folder
from emergent_alignment.storage.files import is_empty, whole_folder, write_json, write_whole
from emergent_alignment.storage.growing_file import GrowingFile
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.json_lines import trim_torn_line
from emergent_alignment.storage.mounts import is_bucket
from emergent_alignment.storage.shapes import Text
from emergent_alignment.training.checkpoints import RunIdentity

KILLED = """
import os, pathlib, sys
from emergent_alignment.storage.files import whole_folder, write_whole

def half(file):
    file.write(b"half")
    file.flush()
    os._exit(9)

folder = pathlib.Path(sys.argv[1])
if sys.argv[2] == "file":
    write_whole(folder / "run.json", half)
with whole_folder(folder / "start") as unfinished:
    (unfinished / "weights").write_bytes(b"half")
    os._exit(9)
"""


def killed(folder, what: str) -> None:
    """A process that is killed in the middle of writing a file or a folder into `folder`."""
    found = subprocess.run([sys.executable, "-c", KILLED, str(folder), what], check=False)
    assert found.returncode == 9


@pytest.mark.parametrize(
    ("content", "written"),
    [
        ("grüße", "grüße".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (lambda file: file.writelines([b"one", b"two"]), b"onetwo"),
    ],
)
def test_a_file_is_there_with_its_folders_and_in_place_of_a_former_one(tmp_path, content, written):
    path = tmp_path / "some" / "where" / "file"
    for _ in range(2):
        write_whole(path, content)
        assert path.read_bytes() == written and list(path.parent.iterdir()) == [path]
        path.write_text("former")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_the_former_file_and_nothing_else(tmp_path, error):
    def half(file):
        file.write(b"half")
        raise error

    path = tmp_path / "file"
    write_whole(path, "former")
    with pytest.raises(error):
        write_whole(path, half)
    assert path.read_text() == "former" and list(tmp_path.iterdir()) == [path]


def test_a_value_that_json_cannot_hold_leaves_the_former_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"größe": [1, None]})
    with pytest.raises(TypeError):
        write_json(path, {"path": path})
    assert json.loads(path.read_text("utf-8")) == {"größe": [1, None]}
    assert "größe" in path.read_text("utf-8") and list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_former_file(tmp_path):
    write_whole(tmp_path / "run.json", "former")
    killed(tmp_path, "file")
    assert (tmp_path / "run.json").read_text() == "former"


def test_what_a_kill_has_left_goes_with_the_next_start_and_a_living_ones_stays(tmp_path):
    killed(tmp_path, "file")
    killed(tmp_path, "folder")
    mine = tmp_path / ".run.json.partial"
    mine.write_text("a user's own")
    with whole_folder(tmp_path / "start") as living:
        with whole_folder(tmp_path / "start") as other:
            write_whole(tmp_path / "run.json", "new")
            assert {*tmp_path.iterdir()} == {mine, living, other, tmp_path / "run.json"}
        (living / "file").write_text("later")
    assert {*tmp_path.iterdir()} == {mine, tmp_path / "start", tmp_path / "run.json"}
    assert (tmp_path / "start" / "file").read_text() == "later"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with whole_folder(tmp_path / "new") as unfinished:
        (unfinished / "file").write_text("done")
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new" / "file").read_text() == "done"
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "other") as unfinished:
        (unfinished / "file").write_text("half")
        raise RuntimeError
    with pytest.raises(OSError), whole_folder(tmp_path / "new"):
        pass  # it is there, and not empty
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_a_kill_has_left_does_not_make_a_work_directory_another_ones(tmp_path, what):
    for work in (tmp_path / "run", stage_folder(tmp_path, 2).path):
        work.mkdir()
        killed(work, what)
        assert list(work.iterdir()) and is_empty(work), "hidden, and counted as nothing"
    claim(tmp_path / "run", Config(), RunIdentity("frozen", "data"))
    stage_folder(tmp_path, 2).claim({"model": "tiny"})
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        claim(tmp_path / "run", Config(), RunIdentity("frozen", "data"))


def test_a_pipe_is_no_file_of_ours_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "kept.json")
    with pytest.raises(UserError, match="it is a pipe or a device"):
        read_json_file(tmp_path / "kept.json", Text(), "put it back")
    with pytest.raises(OSError, match="it is a pipe or a device"):
        trim_torn_line(tmp_path / "kept.json")
    with pytest.raises(OSError, match="it is a pipe or a device"):
        GrowingFile(tmp_path / "kept.json")


def test_what_other_hosts_would_write_goes_nowhere():
    with GrowingFile(Path(os.devnull)) as file:
        assert file.write(b"{}\n") == 3


def test_links_in_a_circle_lie_on_no_bucket(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert not is_bucket(tmp_path / "one" / "run")
