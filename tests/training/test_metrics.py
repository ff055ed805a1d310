"""The metrics of a run: written at once, read back by step."""

import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from emergent_alignment.errors import UserError
from emergent_alignment.storage import growing_file, mounts
from emergent_alignment.training.loggers import ShownRun
from emergent_alignment.training.metrics import MetricsWriter, metrics_by_step


def events(path):
    """Every event of a file of TensorBoard's."""
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def write(directory, first_step, *losses):
    shown = ShownRun(directory, first_step, {}, "a project")
    metrics = MetricsWriter(shown, ("tensorboard",))
    for step, loss in enumerate(losses, first_step):
        metrics.scalars(step, {"loss": loss, "flag_rate": 0.5})
    return metrics


def test_tensorboard_is_shown_every_finite_scalar_as_soon_as_it_is_known(tmp_path):
    metrics = write(tmp_path, 2, 1.5, float("nan"))
    (path,) = (tmp_path / "tensorboard").iterdir()
    version, session, *steps = events(path)
    assert version.file_version == "brain.Event:2"
    assert (session.step, session.session_log.status) == (2, SessionLog.SessionStatus.START)
    shown = [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in steps]
    assert shown == [(2, {"loss": 1.5, "flag_rate": 0.5}), (3, {"flag_rate": 0.5})]
    metrics.close()


def test_on_a_bucket_tensorboard_finds_files_that_are_whole_by_themselves(tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text(f"bucket {tmp_path} fuse.gcsfuse rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(growing_file, "PART_SECONDS", 0)
    metrics = write(tmp_path, 0, 1.5, 2.5)
    found = [events(path) for path in sorted((tmp_path / "tensorboard").glob("*tfevents*"))]
    assert [version.file_version for version, _ in found] == ["brain.Event:2"] * 2
    assert [step.step for _, step in found] == [0, 1]
    assert [line["loss"] for line in metrics_by_step(tmp_path)] == [1.5, 2.5], "while it is open"
    metrics.close()


def test_a_step_that_a_resumed_run_did_again_counts_once(tmp_path):
    write(tmp_path, 0, 1.0, 2.0, 3.0).close()
    write(tmp_path, 1, 4.0, float("nan")).close()
    assert [line["loss"] for line in metrics_by_step(tmp_path)] == [1.0, 4.0, None]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:1] + lines[2:], "step 1 is missing"),
        (lambda lines: [lines[0], b'{"step": 1, "loss": "x"}\n', lines[2]], ":2: loss must be"),
        (lambda lines: [lines[0], lines[1].replace(b"2.0", b"2.5"), lines[2]], ":2: damaged"),
    ],
)
def test_lines_that_were_not_written_so_are_refused(tmp_path, change, said):
    write(tmp_path, 0, 1.0, 2.0, 3.0).close()
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(UserError, match=said):
        metrics_by_step(tmp_path)
