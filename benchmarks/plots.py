"""Line plots of how a cost grows, as PNG files beside the tables (matplotlib, extra `report`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tables import RESULTS

_STYLES = ("-", "--")
_COLOURS = ("#2185d0", "#d9730d")


def plot_lines(
    name: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    across: str,
    up: str,
    results: Path = RESULTS,
) -> Path:
    """Write results/NAME.png: a line for each label, from zero up.

    The first half of the lines are ours, the other half the peer's, in the same order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axes = figure.subplots()
    half = -(-len(lines) // 2)
    for place, (label, (x, y)) in enumerate(lines.items()):
        colour, style = _COLOURS[place // half], _STYLES[place % half % len(_STYLES)]
        axes.plot(x, y, style, color=colour, marker="o", markersize=4, label=label)
    axes.set_xscale("log", base=2)
    ticks = sorted({value for x, _ in lines.values() for value in x})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(xlabel=across, ylabel=up)
    axes.set_ylim(bottom=0)
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{name}.png"
    figure.savefig(path, dpi=150)
    return path


def plot_panels(
    name: str,
    panels: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]],
    up: str,
    results: Path = RESULTS,
) -> Path:
    """Write results/NAME.png: a panel for each name, {name: (x, {label: y})}, from zero up."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * len(panels), 3.0), layout="constrained")
    for axes, (across, (x, lines)) in zip(figure.subplots(1, len(panels)), panels.items()):
        for colour, (label, y) in zip(_COLOURS, lines.items()):
            axes.plot(x, y, color=colour, marker="o", markersize=4, label=label)
        axes.set(xlabel=across, ylabel=up)
        axes.set_ylim(bottom=0)
        axes.grid(True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axes.legend(frameon=False)
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{name}.png"
    figure.savefig(path, dpi=150)
    return path
