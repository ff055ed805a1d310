"""What a run tells as it goes: scalars to JSON lines, which are read back; scalars and texts to its
loggers, which are not."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.storage.growing_file import GrowingFile
from emergent_alignment.storage.json_lines import (
    append_json_lines,
    read_json_lines,
    trim_torn_line,
)
from emergent_alignment.storage.json_values import finite_or_none
from emergent_alignment.storage.shapes import Both, Mapped, Number, Optional
from emergent_alignment.training.loggers import Loggers, ShownRun

METRICS_FILE = "metrics.jsonl"
_RECORD = Both({"step": Number(0, whole=True)}, Mapped(Optional(Number())))


class NoMetrics:
    """What hosts other than the first write of the metrics, which are alike on all: nothing."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Nothing."""

    def texts(self, step: int, records: list[dict]) -> None:
        """Nothing."""

    def settle(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class MetricsWriter:
    """metrics.jsonl (one object a step; a resumed run's later line counts), and the run's
    loggers."""

    def __init__(self, shown: ShownRun, loggers: Sequence[str] = ()):
        shown.workdir.mkdir(parents=True, exist_ok=True)
        path = shown.workdir / METRICS_FILE
        if path.exists():
            trim_torn_line(path)
        self._lines = GrowingFile(path)
        self._loggers = Loggers(loggers, shown)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One step's scalars; those that are not finite are null in the JSON."""
        record = {name: finite_or_none(value) for name, value in values.items()}
        append_json_lines(self._lines, [{"step": step, **record}])
        self._loggers.scalars(step, values)

    def texts(self, step: int, records: Sequence[Mapping]) -> None:
        """Some records of the journal, for those who look on."""
        self._loggers.texts(step, records)

    def settle(self) -> None:
        """All scalars so far survive the loss of this machine."""
        self._lines.settle()

    def close(self) -> None:
        """Close all."""
        self._lines.close()
        self._loggers.close()


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
