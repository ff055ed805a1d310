"""What a checkpoint gives back is what was saved, to the bit, or one line that says it is not."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.training.checkpoints import Checkpoints, RunIdentity
from emergent_alignment.training.marked_folders import MarkedFolder
from emergent_alignment.training.state import TrainState

STATE = TrainState({"a": jnp.arange(2000, dtype=jnp.float32)}, {"count": jnp.zeros((), jnp.int32)})


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", RunIdentity("frozen", "data"))
    checkpoints.save(3, STATE, loss=1.0)
    checkpoints.wait()
    yield checkpoints
    checkpoints.close()


def test_the_state_comes_back_and_bits_that_have_changed_are_one_line(saved, monkeypatch):
    np.testing.assert_array_equal(saved.restore(STATE).trainable["a"], STATE.trainable["a"])
    restore = saved._manager.restore

    def changed(step, args):
        """One bit of one array is another, and no library notices."""
        found = dict(restore(step, args=args))
        if "state" in found:
            bits = np.array(found["state"]["trainable"]["a"]).view(np.uint32)
            bits[7] ^= 1
            found["state"]["trainable"]["a"] = jnp.array(bits.view(np.float32))
        return found

    monkeypatch.setattr(saved._manager, "restore", changed)
    with pytest.raises(UserError) as error:
        saved.restore(STATE)
    said = str(error.value)
    assert said.startswith(f"{saved.directory / '3' / 'state'}: this checkpoint is damaged")
    assert "move it away to go on from the one before" in said and "\n" not in said


def test_files_that_cannot_be_read_are_one_line(saved):
    for path in sorted((saved.directory / "3" / "state").rglob("*")):
        if path.is_file():
            path.write_bytes(b"\x00" * path.stat().st_size)
    with pytest.raises(UserError, match="this checkpoint cannot be read .*; move it away"):
        saved.restore(STATE)


def test_one_of_a_version_without_digits_is_taken_as_it_is_and_said_so(saved, capfd):
    path = saved.directory / "3" / "identity" / "metadata"
    identity = json.loads(path.read_text())
    del identity["state"]
    path.write_text(json.dumps(identity))
    np.testing.assert_array_equal(saved.restore(STATE).trainable["a"], STATE.trainable["a"])
    assert "before checkpoints had a digest" in capfd.readouterr().err


with_marks = pytest.mark.skipif(MarkedFolder is None, reason="this Orbax renames folders")


def leave_unfinished(folder) -> None:
    """As a kill leaves a checkpoint that is nearly written."""
    (folder / "commit_success.txt").unlink()
    path = folder / "_CHECKPOINT_METADATA"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"commit_timestamp_nsecs": None}))
    (folder / "identity" / "metadata").unlink()


@with_marks
def test_one_that_a_kill_left_unfinished_counts_for_nothing_and_is_saved_again(saved, tmp_path):
    saved.save(5, STATE, loss=1.0)
    saved.wait()
    assert saved.latest() == 5
    leave_unfinished(saved.directory / "5")
    again = Checkpoints(tmp_path / "checkpoints", RunIdentity("frozen", "data"))
    assert again.latest() == 3
    with pytest.raises(UserError, match="5: this checkpoint cannot be read"):
        again.restore(STATE, 5)
    again.save(5, STATE, loss=1.0)
    again.wait()
    assert again.latest() == 5
    again.restore(STATE)
    again.close()


def test_one_that_a_former_version_renamed_without_a_mark_is_whole(saved, tmp_path):
    for mark in list(saved.directory.rglob("commit_success.txt")):
        mark.unlink()
    again = Checkpoints(tmp_path / "checkpoints", RunIdentity("frozen", "data"))
    assert again.latest() == 3
    again.restore(STATE)
    again.save(5, STATE, loss=1.0)
    again.close()
    assert again.latest() == 5


@with_marks
def test_no_folder_is_renamed_to_save_and_to_remove_one(tmp_path, monkeypatch):
    renamed = []
    for name in ("rename", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda *paths, real=real: (renamed.append(os.path.isdir(paths[0])), real(*paths)),
        )
    checkpoints = Checkpoints(tmp_path / "checkpoints", RunIdentity("frozen", "data"), keep=1)
    for step in (1, 2, 3):
        checkpoints.save(step, STATE, loss=1.0 / step)
    checkpoints.close()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert not any(renamed)
