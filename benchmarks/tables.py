"""Medians, ratios by pairs of runs, tables to read and JSON files to keep."""

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from emergent_alignment.storage.files import write_json

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Ratio:
    """How many times as much the peer takes as we do, pair by pair: median, least, most."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}× ({self.low:.2f}–{self.high:.2f})"


def ratio_of_pairs(ours: Sequence[float], peer: Sequence[float]) -> Ratio:
    """The ratio peer / ours of runs that were made in turns. Above 1, we take less.

    Raises ValueError where the runs do not come in pairs.
    """
    if len(ours) != len(peer) or not ours:
        raise ValueError(f"pairs of runs are needed, not {len(ours)} and {len(peer)} runs")
    ratios = [theirs / own for own, theirs in zip(ours, peer)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def seconds_text(seconds: Sequence[float]) -> str:
    """The median, and the least and the most: '1.20 s (1.10–1.40)'."""
    low, high = min(seconds), max(seconds)
    return f"{statistics.median(seconds):.3g} s ({low:.3g}–{high:.3g})"


def bytes_text(num_bytes: float) -> str:
    """Decimal units, three digits: '11.3 GB', '84.0 MB'."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} B"


def largest_difference(
    ours: Sequence[dict], peer: Sequence[dict], names: tuple[str, str], steps: int
) -> float:
    """The largest |ours[names[0]] − peer[names[1]]| over the first `steps` steps.

    Raises ValueError where a side has fewer steps.
    """
    if min(len(ours), len(peer)) < steps:
        raise ValueError(f"{steps} steps are needed, not {len(ours)} and {len(peer)}")
    pairs = zip(ours[:steps], peer[:steps])
    return max(abs(own[names[0]] - theirs[names[1]]) for own, theirs in pairs)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, as wide as it needs to be where stdout is not a terminal."""
    console = Console(width=None if os.isatty(1) else 160)
    table = Table()
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(title, table, sep="\n", highlight=False)


def machine() -> dict:
    """When and where a row was measured: the processor, its load, the memory."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text("utf-8").splitlines() if "model name" in line]
        processor = names[0].split(":")[1].strip() if names else processor
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor,
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
    }


def keep_rows(
    name: str, rows: Sequence[dict], key: tuple[str, ...], results: Path = RESULTS
) -> Path:
    """Add rows to results/NAME.json; a row of the same key takes the place of the older one."""
    path = results / f"{name}.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else []
    fresh = {tuple(row[field] for field in key) for row in rows}
    kept = [row for row in kept if tuple(row.get(field) for field in key) not in fresh]
    write_json(path, [*kept, *rows])
    return path
