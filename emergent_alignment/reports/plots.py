"""The report's plots, each one small SVG to put inside a page: matplotlib without pyplot.

Lines and text that must show on light and on dark paper take the page's text colour; the other
colours are middle tones. Titles and explanations are the page's, not the plot's.
"""

import importlib.util
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape

from emergent_alignment.errors import UserError
from emergent_alignment.intervals import Interval
from emergent_alignment.storage.files import write_whole

Curve = tuple[np.ndarray, np.ndarray]  # steps [n], values [n]

_INK = "#010203"  # becomes currentColor, the page's text colour
_SIZE_INCHES = (4.4, 2.9)
_MOST_POINTS = 200
_MOST_BARS = 40
_ARM_STYLES = {
    "base": ("#7d8590", ":"),
    "plain": ("#d9730d", "--"),
    "conscience": ("#2185d0", "-"),
    "safe": ("#2a9d5c", "-"),
    "chosen": ("#2a9d5c", "-"),
    "harmful": ("#d1495b", "--"),
    "rejected": ("#d1495b", "--"),
}
_OTHER_STYLES = (("#8e6bd1", "-."), ("#b08900", "-"), ("#12908e", "--"), ("#c2528b", ":"))
_OUTCOME_COLOURS = {
    "approved": "#7d8590",
    "revised_rewrite": "#2185d0",
    "revised_fresh": "#2a9d5c",
    "dropped_disapproved": "#d1495b",
    "dropped_identical": "#d9730d",
    "dropped_truncated": "#b08900",
    "dropped_empty": "#8e6bd1",
    "dropped_too_long": "#c2528b",
    "dropped_not_finite": "#6b4f3a",
}


def require_matplotlib() -> None:
    """A UserError that names the extra, where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(
            "the report needs matplotlib, which is not installed: "
            "pip install 'emergent-alignment[report]'"
        )


def interval_plot(intervals: Mapping[str, Interval], axis_label: str, name: str) -> Markup:
    """One dot and its 95% interval a row."""

    def draw(axes):
        for row, (label, interval) in enumerate(intervals.items()):
            colour, _ = _style(label, row)
            axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=2.5)
            axes.plot([interval.value], [row], "o", color=colour, markersize=7)
        axes.set_yticks(range(len(intervals)), list(intervals))
        axes.set_ylim(len(intervals) - 0.4, -0.6)
        axes.set_xlabel(axis_label)
        axes.margins(x=0.12)

    return _svg(draw, name)


def curve_plot(curves: Mapping[str, Curve], axis_label: str, name: str) -> Markup:
    """Curves over training steps; long ones are drawn faintly with their running mean on top."""

    def draw(axes):
        for place, (label, (steps, values)) in enumerate(curves.items()):
            colour, line = _style(label.rsplit(" ", 1)[-1], place)
            steps, values = _thin_out(steps, values)
            window = len(values) // 15
            if window > 1:
                axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.35)
                values = running_mean(values, window)
            marker = "o" if len(values) == 1 else ""
            axes.plot(steps, values, line, color=colour, linewidth=1.8, label=label, marker=marker)
        axes.set_xlabel("step")
        axes.set_ylabel(axis_label)

    return _svg(draw, name, legend_columns=min(len(curves), 3) * (len(curves) > 1))


def score_plot(groups: Mapping[str, list[float]], threshold: float | None, name: str) -> Markup:
    """Distributions of scores: share of each group in common bins, threshold marked."""

    def draw(axes):
        every = np.concatenate([np.asarray(scores) for scores in groups.values()])
        bins = np.histogram_bin_edges(every, bins=int(np.clip(2 * len(every) ** 0.4, 6, 24)))
        for place, (label, scores) in enumerate(groups.items()):
            colour, line = _style(label, place)
            weights = np.full(len(scores), 1 / len(scores))
            look = {"color": colour, "weights": weights, "bins": bins}
            axes.hist(scores, histtype="stepfilled", alpha=0.16, **look)
            axes.hist(scores, histtype="step", linewidth=1.8, linestyle=line, label=label, **look)
        _mark_threshold(axes, threshold)
        axes.set_xlabel("score (nats)")
        axes.set_ylabel("share of answers")

    return _svg(draw, name, legend_columns=min(len(groups) + 1, 4))


def flag_plot(safe: list[float], harmful: list[float], threshold: float, name: str) -> Markup:
    """The share of safe and of harmful answers flagged (score below the threshold), as the
    threshold moves."""

    def draw(axes):
        every = np.unique(np.concatenate([safe, harmful]))
        pad = 0.05 * max(float(np.ptp(every)), 1e-6)
        thresholds = np.concatenate(
            [[every[0] - pad], np.nextafter(every, np.inf), [every[-1] + pad]]
        )
        for label, scores in (("harmful", harmful), ("safe", safe)):
            colour, line = _style(label, 0)
            flagged = share_flagged(scores, thresholds)
            axes.plot(thresholds, flagged, line, color=colour, label=label, drawstyle="steps-post")
        _mark_threshold(axes, threshold)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("threshold (nats)")
        axes.set_ylabel("share flagged")

    return _svg(draw, name, legend_columns=3)


def outcome_plot(steps: np.ndarray, counts: Mapping[str, np.ndarray], name: str) -> Markup:
    """Outcomes a step, stacked; long runs are summed over equal stretches of steps."""

    def draw(axes):
        stretch = -(-len(steps) // _MOST_BARS)
        starts = np.arange(0, len(steps), stretch)
        places = steps[starts]
        bottom = np.zeros(len(starts))
        width = 0.9 * float(np.min(np.diff(places))) if len(places) > 1 else 0.9
        for row, (outcome, count) in enumerate(counts.items()):
            heights = np.add.reduceat(count, starts)
            colour = _OUTCOME_COLOURS.get(outcome) or _OTHER_STYLES[row % len(_OTHER_STYLES)][0]
            axes.bar(places, heights, width, bottom, align="edge", color=colour, label=outcome)
            bottom += heights
        axes.set_xlabel("step")
        axes.set_ylabel("candidates" if stretch == 1 else f"candidates in {stretch} logged steps")

    return _svg(draw, name, legend_columns=2)


def trade_off_plot(
    points: Mapping[str, tuple[Interval, Interval]], axis_labels: tuple[str, str], name: str
) -> Markup:
    """One dot for each label at (x, y), with both 95% intervals as a cross."""

    def draw(axes):
        for place, (label, (x, y)) in enumerate(points.items()):
            colour, _ = _style(label, place)
            axes.plot([x.low, x.high], [y.value] * 2, color=colour, linewidth=1.2, alpha=0.7)
            axes.plot([x.value] * 2, [y.low, y.high], color=colour, linewidth=1.2, alpha=0.7)
            axes.plot([x.value], [y.value], "o", color=colour, markersize=7, label=label)
        axes.set_xlabel(axis_labels[0])
        axes.set_ylabel(axis_labels[1])
        axes.margins(0.12)

    return _svg(draw, name, legend_columns=min(len(points), 4))


def plane_plot(
    points: Mapping[str, tuple[Interval, Interval]],
    lines: Mapping[str, list[tuple[float, float]]],
    axis_labels: tuple[str, str],
    name: str,
) -> Markup:
    """Shares against shares: dots with both intervals, lines through what belongs together, and the
    diagonal, on which both are the same."""

    def draw(axes):
        axes.axline((0, 0), slope=1, color=_INK, linewidth=0.8, linestyle=":")
        for place, (label, line) in enumerate(lines.items()):
            _, dashes = _OTHER_STYLES[place % len(_OTHER_STYLES)]
            colour = _OTHER_STYLES[place % len(_OTHER_STYLES)][0]
            x, y = zip(*line)
            axes.plot(x, y, dashes, color=colour, linewidth=1.2, marker=".", label=label)
        for place, (label, (x, y)) in enumerate(points.items()):
            colour, _ = _style(label, place)
            axes.errorbar(
                x.value,
                y.value,
                xerr=[[x.value - x.low], [x.high - x.value]],
                yerr=[[y.value - y.low], [y.high - y.value]],
                color=colour,
                marker="o",
                markersize=5,
                elinewidth=0.9,
                alpha=0.9,
            )
            axes.annotate(label, (x.value, y.value), (4, 3), textcoords="offset points", fontsize=7)
        axes.set_xlabel(axis_labels[0])
        axes.set_ylabel(axis_labels[1])
        axes.margins(0.12)

    return _svg(draw, name, legend_columns=min(len(lines), 4), height_inches=3.6)


def bar_plot(values: Mapping[str, Mapping[str, float]], axis_label: str, name: str) -> Markup:
    """A group of bars for each item, a bar for each label that has it."""
    items = list(dict.fromkeys(item for of_label in values.values() for item in of_label))

    def draw(axes):
        height = 0.8 / len(values)
        for place, (label, of_label) in enumerate(values.items()):
            colour, _ = _style(label, place)
            rows = [items.index(item) + (place + 0.5) * height - 0.4 for item in of_label]
            axes.barh(rows, list(of_label.values()), height * 0.9, color=colour, label=label)
        axes.set_yticks(range(len(items)), items, fontsize=7)
        axes.set_ylim(len(items) - 0.4, -0.6)
        axes.set_xlabel(axis_label)

    taller = max(_SIZE_INCHES[1], 0.28 * len(items) + 0.8)
    return _svg(draw, name, legend_columns=min(len(values), 4), height_inches=taller)


def write_figure(figure: Markup, path: Path) -> None:
    """A figure of a page as an .svg file of its own, readable on light and on dark."""
    own = 'xmlns="http://www.w3.org/2000/svg" color="#808080"'
    write_whole(path, str(figure).replace("<svg", f"<svg {own}", 1))


def share_flagged(scores: list[float], thresholds: np.ndarray) -> np.ndarray:
    """The share of `scores` below each threshold: [thresholds]."""
    return np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean over up to `window` values on each side, and the value itself: [n]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - window, 0), np.minimum(places + window + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _thin_out(steps: np.ndarray, values: np.ndarray) -> Curve:
    """Means over equal stretches, so that a long run is not a huge page."""
    stretch = -(-len(steps) // _MOST_POINTS)
    starts = np.arange(0, len(steps), max(stretch, 1))
    sizes = np.diff(np.append(starts, len(steps)))
    return (
        np.add.reduceat(steps, starts) / sizes,
        np.add.reduceat(values, starts) / sizes,
    )


def _style(label: str, place: int) -> tuple[str, str]:
    return _ARM_STYLES.get(label) or _OTHER_STYLES[place % len(_OTHER_STYLES)]


def _mark_threshold(axes, threshold: float | None) -> None:
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linewidth=1, linestyle=(0, (2, 2)), label="threshold")


def _svg(
    draw: Callable,
    name: str,
    *,
    legend_columns: int = 0,
    height_inches: float = _SIZE_INCHES[1],
) -> Markup:
    """A figure as an <svg> element that scales; `name` is what a screen reader says."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": name,
        "text.parse_math": False,  # a label may hold a $
        "font.size": 9,
        **dict.fromkeys(
            ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], _INK
        ),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#808080",
        "grid.alpha": 0.22,
        "axes.axisbelow": True,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(_SIZE_INCHES[0], height_inches), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        if legend_columns:
            figure.legend(
                loc="outside upper center",
                ncols=legend_columns,
                handlelength=1.6,
                columnspacing=1.2,
            )
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True)
    return _inline(written.getvalue(), name)


def _inline(svg: str, name: str) -> Markup:
    """Matplotlib's file made part of a page: no prologue, no addresses, ids of its own."""
    own = re.sub(r"\W+", "-", name.lower()).strip("-")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(name)}"', 1)
    return Markup(svg.replace(_INK, "currentColor"))
