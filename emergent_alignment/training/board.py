"""A run's numbers and texts for TensorBoard."""

import math
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar, text

from emergent_alignment.storage.growing_file import GrowingFile

FOLDER = "tensorboard"


class Board:
    """A file of TensorBoard's events, written at once: a thread that writes them later dies of a
    full disk, and whoever waits for it waits for ever. A logger (loggers.py)."""

    def __init__(self, directory: Path, first_step: int):
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        version = Event(wall_time=time.time(), file_version="brain.Event:2")
        self._file = GrowingFile(directory / name, header=_framed(version))
        if first_step:  # what a killed start has shown of later steps does not count
            started = SessionLog(status=SessionLog.SessionStatus.START)
            self._write(Event(wall_time=time.time(), step=first_step, session_log=started))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Those that are finite."""
        self._add(step, [scalar(*pair) for pair in values.items() if math.isfinite(pair[1])])

    def texts(self, step: int, records: Sequence[Mapping]) -> None:
        """Records of the journal as text."""
        shown = enumerate(map(as_markdown, records))
        self._add(step, [text(f"journal/{i}", markdown) for i, markdown in shown])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, step: int, summaries: Iterable[Summary]) -> None:
        values = [value for summary in summaries for value in summary.value]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        self._file.write(_framed(event))


def _framed(event: Event) -> bytes:
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _checksum(content: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(content))


def as_markdown(record: Mapping) -> str:
    """A record of the journal; model text is shown as it is, and never read as markup."""
    parts = [
        ("outcome", record["outcome"]),
        ("prompt", record["prompt"][-1]["content"]),
        (f"candidate ({record['candidate_score']})", record["candidate"]),
        (f"revision ({record['revision_score']})", record["revision"]),
    ]
    # Indented blocks.
    return "\n\n".join(
        f"**{name}**\n\n" + "\n".join("    " + line for line in str(text).splitlines())
        for name, text in parts
    )
