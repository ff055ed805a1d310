"""What a checkpoint gives back is what was saved, to the bit, or one line that says it is not."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.training.checkpoints import Checkpoints, RunIdentity
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
