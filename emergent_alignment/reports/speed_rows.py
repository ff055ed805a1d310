"""Where a run's wall time went, and how fast its steps were: the rows of the report's table."""

from collections.abc import Callable, Sequence

import numpy as np

from emergent_alignment.reports.results_folder import MISSING, ArmResults
from emergent_alignment.storage.json_values import is_number

_SHARE = "seconds_share/"
_SPEEDS = (
    ("seconds a step", "seconds/step", 1.0, "{:.3g}"),
    ("seconds of its input (samples, reviews)", "seconds/inputs", 1.0, "{:.3g}"),
    ("tokens a second, all of it", "tokens_per_second", 1.0, "{:.0f}"),
    ("ideal TFLOP a second of a step", "model_flops_per_second", 1e-12, "{:.3g}"),
    ("share of the chips' peak in a step (MFU)", "mfu", 1.0, "{:.1%}"),
)


def speed_rows(arms: Sequence[ArmResults]) -> list[tuple[str, list[str]]]:
    """(label, a cell for each arm): shares of the wall time at the last logged step, then medians
    over the steps; a row that no arm has is left out."""
    shares = [_last_shares(arm) for arm in arms]
    names = dict.fromkeys(name for one in shares for name in one)
    rows = [
        (_share_label(name), [_cell(one.get(name), "{:.1%}".format) for one in shares])
        for name in names
    ]
    for label, key, unit, shown in _SPEEDS:
        values = [arm.curve(key)[1] for arm in arms]
        medians = [float(np.median(one)) * unit if one.size else None for one in values]
        if any(median is not None for median in medians):
            rows.append((f"{label}, median", [_cell(median, shown.format) for median in medians]))
    return rows


def _last_shares(arm: ArmResults) -> dict[str, float]:
    """Part of the wall time → its share, since the run's last start."""
    for row in reversed(arm.metrics):
        last = {
            key.removeprefix(_SHARE): value
            for key, value in row.items()
            if key.startswith(_SHARE) and is_number(value)
        }
        if last:
            return last
    return {}


def _share_label(name: str) -> str:
    return "wall time in steps (goodput)" if name == "step" else f"wall time in {name}"


def _cell(value: float | None, shown: Callable[[float], str]) -> str:
    return MISSING if value is None else shown(value)
