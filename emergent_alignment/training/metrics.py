"""What a run tells as it goes: scalars to JSON lines and TensorBoard, texts to TensorBoard."""

import json
import math
from pathlib import Path

from tensorboardX import SummaryWriter

from emergent_alignment.storage.json_lines import trim_torn_line
from emergent_alignment.storage.json_values import finite_or_none


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
        path = directory / "metrics.jsonl"
        if path.exists():
            trim_torn_line(path)
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(
            str(directory / "tensorboard"), purge_step=first_step if first_step else None
        )

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One step's scalars; those that are not finite are null in the JSON."""
        record = {name: finite_or_none(value) for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **record}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if math.isfinite(value):
                self._board.add_scalar(name, value, step)

    def texts(self, step: int, records: list[dict]) -> None:
        """Sampled journal entries as TensorBoard text."""
        for i, record in enumerate(records):
            self._board.add_text(f"journal/{i}", _as_markdown(record), step)

    def close(self) -> None:
        """Flush and close both."""
        self._lines.close()
        self._board.close()


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
