"""What a run tells as it goes: scalars to JSON lines and TensorBoard, texts to TensorBoard."""

import math
import os
import socket
import struct
import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar, text

from emergent_alignment.errors import UserError
from emergent_alignment.storage.json_lines import (
    append_json_lines,
    append_whole,
    read_json_lines,
    trim_torn_line,
)
from emergent_alignment.storage.json_values import finite_or_none
from emergent_alignment.storage.shapes import Both, Mapped, Number, Optional

METRICS_FILE = "metrics.jsonl"
_RECORD = Both({"step": Number(0, whole=True)}, Mapped(Optional(Number())))


class NoMetrics:
    """What hosts other than the first write of the metrics, which are alike on all: nothing."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Nothing."""

    def texts(self, step: int, records: list[dict]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class MetricsWriter:
    """metrics.jsonl (one object a step; a resumed run's later line counts) and tensorboard/."""

    def __init__(self, directory: Path, *, first_step: int = 0):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / METRICS_FILE
        if path.exists():
            trim_torn_line(path)
        self._lines = path.open("ab", buffering=0)
        self._board = Board(directory / "tensorboard", first_step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One step's scalars; those that are not finite are null in the JSON."""
        record = {name: finite_or_none(value) for name, value in values.items()}
        append_json_lines(self._lines, [{"step": step, **record}])
        self._board.add(step, [scalar(*pair) for pair in values.items() if math.isfinite(pair[1])])

    def texts(self, step: int, records: list[dict]) -> None:
        """Sampled journal entries as TensorBoard text."""
        shown = enumerate(map(_as_markdown, records))
        self._board.add(step, [text(f"journal/{i}", markdown) for i, markdown in shown])

    def close(self) -> None:
        """Close both."""
        self._lines.close()
        self._board.close()


class Board:
    """A file of TensorBoard's events, written at once: a thread that writes them later dies of a
    full disk, and whoever waits for it waits for ever."""

    def __init__(self, directory: Path, first_step: int):
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = (directory / name).open("ab", buffering=0)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if first_step:  # what a killed start has shown of later steps does not count
            started = SessionLog(status=SessionLog.SessionStatus.START)
            self._write(Event(wall_time=time.time(), step=first_step, session_log=started))

    def add(self, step: int, summaries: list[Summary]) -> None:
        """Write some values of a step."""
        values = [value for summary in summaries for value in summary.value]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        append_whole(self._file, length + _checksum(length) + content + _checksum(content))


def _checksum(content: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(content))


def metrics_by_step(directory: Path) -> list[dict]:
    """A run's lines, one a step from step 0 on: the later one, where a resumed run did a step
    again. Raises UserError for a line that is not what was written, or a step that is missing."""
    path = directory / METRICS_FILE
    by_step = {line["step"]: line for line in read_json_lines(path, _RECORD)}
    missing = next((step for step in range(len(by_step)) if step not in by_step), None)
    if missing is not None:
        raise UserError(f"{path}: step {missing} is missing. Put the file back as it was")
    return [by_step[step] for step in range(len(by_step))]


def check_metrics(directory: Path) -> None:
    """Raise UserError for a line of metrics.jsonl that is not what a former start has written."""
    for _ in read_json_lines(directory / METRICS_FILE, _RECORD):
        pass


def _as_markdown(record: dict) -> str:
    parts = [
        ("outcome", record["outcome"]),
        ("prompt", record["prompt"][-1]["content"]),
        (f"candidate ({record['candidate_score']})", record["candidate"]),
        (f"revision ({record['revision_score']})", record["revision"]),
    ]
    # Indented blocks: model text is shown as it is, and never read as markup.
    return "\n\n".join(
        f"**{name}**\n\n" + "\n".join("    " + line for line in str(text).splitlines())
        for name, text in parts
    )
