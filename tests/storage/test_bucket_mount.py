"""A mounted bucket, as tests/bucket_mount.py plays it: what a process must not rely on there."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.storage import mounts
from emergent_alignment.storage.cache import cache_path, cached_beside, users_cache
from emergent_alignment.storage.files import is_empty, is_whole_folder
from emergent_alignment.storage.growing_file import GrowingFile, grown_in, grown_parts
from emergent_alignment.storage.json_lines import (
    append_json_lines,
    read_json_lines,
    write_checked_lines,
)

TESTS = Path(__file__).parents[1]


def start_on_a_bucket(root: Path, script: str, **options) -> subprocess.Popen:
    """A script in a process of its own, to which `root` is a mounted bucket."""
    before = "from pathlib import Path; import os, sys; from bucket_mount import mounted\n"
    before += f"root = Path({str(root)!r}); mounted(root)\n"
    return subprocess.Popen(
        [sys.executable, "-c", before + textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def on_a_bucket(root: Path, script: str, **options) -> subprocess.CompletedProcess:
    """The same, until it has ended."""
    process = start_on_a_bucket(root, script, **options)
    said = process.communicate(timeout=100)
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


def on_mount(root: Path, monkeypatch, tmp_path: Path) -> None:
    """In this process `root` is called a bucket, and is an ordinary folder."""
    (tmp_path / "table").write_text(f"bucket {root} fuse.gcsfuse rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "table")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


def test_what_is_not_closed_is_not_there_and_no_folder_is_renamed(root):
    done = on_a_bucket(root, """
        import tempfile
        file = (root / "a").open("ab", buffering=0)
        file.write(b"one")
        assert not (root / "a").exists() and os.listdir(root) == []
        file.close()
        assert (root / "a").read_bytes() == b"one"
        with open(root / "a", "a") as again:
            again.write("two")
            again.flush()
            assert (root / "a").read_text() == "one"
        assert (root / "a").read_text() == "onetwo"
        tempfile.TemporaryFile(dir=root, prefix=".").close()
        assert os.listdir(root) == ["a"]
        os.replace(root / "a", root / "b")
        (root / "folder").mkdir()
        for rename in os.rename, os.replace:
            try:
                rename(root / "folder", root / "other")
                raise AssertionError("a folder was renamed")
            except OSError as error:
                pass
        lost = (root / "lost").open("wb")
        lost.write(b"lost")
        lost.flush()
        os.kill(os.getpid(), 9)
    """)  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert sorted(os.listdir(root)) == ["b", "folder"]


def test_a_growing_file_is_read_as_far_as_it_was_closed(root):
    """… in the order in which it was written, whoever wrote where."""
    path = root / "a.jsonl"
    write_checked_lines(path, [{"n": 0}])
    done = on_a_bucket(root, """
        from emergent_alignment.storage.growing_file import GrowingFile
        from emergent_alignment.storage.json_lines import append_json_lines, read_json_lines
        file = GrowingFile(root / "a.jsonl")
        append_json_lines(file, [{"n": 1}, {"n": 2}])
        file.flush()
        assert [r["n"] for r in read_json_lines(root / "a.jsonl")] == [0]
        file.settle()
        append_json_lines(file, [{"n": 3}])
        file.settle()
        append_json_lines(file, [{"lost": True}])
        often = GrowingFile(root / "often.jsonl", part_seconds=0)
        append_json_lines(often, [{"n": n} for n in range(12)])
        os.kill(os.getpid(), 9)
    """)  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert [r["n"] for r in read_json_lines(path)] == [0, 1, 2, 3]
    assert [part.name for part in grown_parts(path)] == [
        "a.jsonl",
        "a.00000.jsonl",
        "a.00001.jsonl",
    ]
    assert [r["n"] for r in read_json_lines(root / "often.jsonl")] == list(range(12))
    assert not (root / "often.jsonl").exists() and len(os.listdir(root)) == 15
    assert grown_in(root, ".jsonl") == [path, root / "often.jsonl"]
    # The same folder, copied to a disk: one more part, which grows.
    for n in (4, 5):
        with GrowingFile(path) as file:
            append_json_lines(file, [{"n": n}])
    assert [r["n"] for r in read_json_lines(path)] == list(range(6))
    assert {part.name for part in grown_parts(path)} == {
        "a.jsonl", *(f"a.{n:05d}.jsonl" for n in range(4))
    }  # fmt: skip


def test_two_that_fill_one_file_do_not_take_each_other_s_parts(root, tmp_path, monkeypatch):
    on_mount(root, monkeypatch, tmp_path)
    with GrowingFile(root / "a.jsonl") as one, GrowingFile(root / "a.jsonl") as other:
        append_json_lines(one, [{"n": 0}])
        append_json_lines(other, [{"n": 1}])
        append_json_lines(one, [{"n": 2}])
    assert [part.read_bytes().count(b"\n") for part in grown_parts(root / "a.jsonl")] == [2, 1]


def test_a_part_that_is_damaged_is_named(root):
    (root / "a.00003.jsonl").write_bytes(b'{"n": 1}\n{"n": \n{"torn')
    with pytest.raises(UserError, match="a.00003.jsonl:2: "):
        list(read_json_lines(root / "a.jsonl"))


FOLDER = """
    from emergent_alignment.storage.files import whole_folder, is_whole_folder
    def write(kill=False):
        with whole_folder(root / "made") as folder:
            (folder / "one").write_text("1")
            assert not is_whole_folder(root / "made")
            if kill:
                os.kill(os.getpid(), 9)
            (folder / "two").write_text("2")
"""


def test_a_folder_that_a_kill_left_unfinished_is_written_again(root):
    assert on_a_bucket(root, FOLDER + "    write(kill=True)").returncode == -9
    assert (root / "made" / "one").exists() and not is_whole_folder(root / "made")
    done = on_a_bucket(root, FOLDER + "    write()")
    assert done.returncode == 0, done.stderr
    assert is_whole_folder(root / "made")
    assert sorted(os.listdir(root / "made")) == ["one", "two"]
    again = on_a_bucket(root, FOLDER + "    write()")
    assert "Directory not empty" in again.stderr
    assert sorted(os.listdir(root / "made")) == ["one", "two"]


def test_two_processes_of_a_machine_do_not_work_in_one_folder(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script = """
        from emergent_alignment.storage.locks import locked
        with locked(root / "run", "wait"):
            print(os.listdir(root / "run"), flush=True)
            sys.stdin.read()
    """
    first = start_on_a_bucket(root, script, stdin=subprocess.PIPE)
    assert first.stdout.readline() == "[]\n"
    second = on_a_bucket(root, script)
    assert f"another process works in it (process {first.pid} on" in second.stderr
    first.communicate("")
    assert first.returncode == 0
    (tmp_path / "file").touch()
    for cache in ("cache", "file"):  # in the latter nothing can be kept
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        third = on_a_bucket(root, script, stdin=subprocess.DEVNULL)
        assert third.returncode == 0, third.stderr


def test_caches_lie_in_the_work_directory_of_a_bucket_alone(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with cached_beside(tmp_path / "run"):
        assert users_cache() == tmp_path / "cache" / "emergent-alignment"
    on_mount(root, monkeypatch, tmp_path)
    with cached_beside(root / "run"):
        assert cache_path("", "reviews", {}).parent == root / "run" / ".cache" / "reviews"
        assert cache_path(str(tmp_path), "reviews", {}).parent == tmp_path
    assert users_cache() == tmp_path / "cache" / "emergent-alignment"
    (root / "run" / ".cache").mkdir(parents=True)
    assert is_empty(root / "run"), "it may become a run's"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("fuse.gcsfuse", True),
        ("fuse", True),
        ("fuse.sshfs", False),
        ("fuse.fuse-overlayfs", False),
        ("ext4", False),
    ],
)
def test_a_bucket_is_known_by_what_is_mounted_nearest(tmp_path, monkeypatch, kind, expected):
    place = tmp_path / "a folder"
    place.mkdir()
    lines = [
        "overlay / overlay rw 0 0",
        "bucket /else fuse.gcsfuse rw 0 0",
        f"x {str(place).replace(' ', chr(92) + '040')} {kind} rw 0 0",
    ]
    (tmp_path / "mounts").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    assert mounts.is_bucket(place / "not" / "yet") is expected
    assert not mounts.is_bucket(tmp_path)
    (tmp_path / "link").symlink_to(place)
    assert mounts.is_bucket(tmp_path / "link") is expected
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "none")
    assert not mounts.is_bucket(place)
