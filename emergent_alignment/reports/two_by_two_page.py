"""The page of a two-by-two: which arms are aimed, in words; τ and η in a plane with the fronts; S
with its intervals; harm by kind; the judges side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from emergent_alignment.evaluation.two_by_two.comparison import (
    BASE_ARM,
    CHANCE,
    KL,
    PLAIN_ARM,
    Compared,
    Experiment,
    compared_arms,
    family,
    fronts_of,
    margin_kept,
    plain_loss,
    read_experiment,
)
from emergent_alignment.evaluation.two_by_two.selectivity import Selectivity
from emergent_alignment.intervals import Interval
from emergent_alignment.reports import pages, plots
from emergent_alignment.reports.results_folder import MISSING
from emergent_alignment.reports.two_by_two_figures import figures_table, judges_table
from emergent_alignment.reports.two_by_two_told import told_table
from emergent_alignment.reports.two_by_two_words import verdict_sentences

TWO_BY_TWO_PAGE = "two_by_two.html"


@dataclass(frozen=True)
class UnderJudge:
    """What one judge, who has a say, makes of an experiment."""

    judge: str
    arms: list[Compared]
    fronts: dict[str, dict[str, Selectivity]]


def write_two_by_two_report(root: Path) -> tuple[Path, list[list[str]], str]:
    """Write root/two_by_two.html; returns it, its main table, and its first paragraph. Raises
    UserError where nothing has been measured."""
    plots.require_matplotlib()
    experiment = read_experiment(root)
    judged = [
        UnderJudge(judge, compared_arms(experiment, judge), fronts_of(experiment, judge))
        for judge, valid in experiment.judges.items()
        if valid
    ]
    table = shares_table(experiment, judged)
    paragraph = verdict_sentences({one.judge: one.arms for one in judged}, plain_loss(experiment))
    every = [
        steps[step]
        for seeds in experiment.arms.values()
        for steps in seeds.values()
        for step in steps
    ]
    planes = [(one.judge, _plane(one)) for one in judged]
    page = pages.rendered(
        "two_by_two_page.html",
        name=root.resolve().name,
        seeds=experiment.seeds,
        paragraph=paragraph,
        table=table,
        planes=planes,
        selectivities=[(one.judge, _selectivities(one)) for one in judged],
        kinds=_kinds(experiment, [one.judge for one in judged]),
        judges=judges_table(every),
        figures=figures_table(every),
        told=told_table(experiment),
    )
    for judge, plane in planes:
        plots.write_figure(plane, root / "figures" / f"two-by-two-{judge}.svg")
    path = root / TWO_BY_TWO_PAGE
    pages.write_page(path, page)
    return path, table, " ".join(paragraph)


def shares_table(experiment: Experiment, judged: list[UnderJudge]) -> list[list[str]]:
    """A header, and a row for each arm and judge."""
    fronts = list(dict.fromkeys(name for one in judged for arm in one.arms for name in arm.above))
    header = ["arm", "judge", "τ", "η", "S over seeds", "S over seeds and prompts"]
    header += [f"η above {name} at equal τ" for name in fronts]
    rows = [[*header, "margin lost, share of plain's", "aimed"]]
    for one in judged:
        for arm in one.arms:
            over = arm.shares.over_seeds
            shares = [_share(arm.shares, name) for name in ("tau", "eta")]
            cells = [over["S"], arm.shares.resampled["S"]]
            cells += [arm.above.get(name) for name in fronts]
            cells.append(margin_kept(experiment, arm.arm))
            aimed = {True: "yes", False: "no", None: "undecided"}[arm.aimed]
            rows.append([arm.arm, one.judge, *shares, *map(_text, cells), aimed])
    return rows


def _share(shares: Selectivity, name: str) -> str:
    interval = shares.over_seeds[name] or shares.resampled[name]
    return _text(interval)


def _text(interval: Interval | None) -> str:
    if interval is None:
        return MISSING
    return interval.text() if np.isfinite(interval.low) else f"{interval.value:.2f}"


def _plane(one: UnderJudge) -> Markup:
    """τ against η: an arm a dot, a front a line from base to plain."""
    zero, whole = Interval(0.0, 0.0, 0.0, 1), Interval(1.0, 1.0, 1.0, 1)
    points = {BASE_ARM: (zero, zero), PLAIN_ARM: (whole, whole)}
    for arm in one.arms:
        ends = [
            arm.shares.over_seeds[name] or arm.shares.resampled[name] for name in ("tau", "eta")
        ]
        if all(ends):
            points[arm.arm] = tuple(ends)
    lines = {
        name: _line(front) for name, front in one.fronts.items() if not name.startswith(CHANCE)
    }
    for name in {family(arm.arm) for arm in one.arms if not arm.arm.startswith((KL, CHANCE))}:
        strengths = {arm.arm: arm.shares for arm in one.arms if family(arm.arm) == name}
        if len(strengths) > 1:
            lines[name] = _line(strengths)
    labels = "τ: the form learned, share of plain's", "η: the harm acquired, share of plain's"
    return plots.plane_plot(points, lines, labels, f"Task and harm ({one.judge})")


def _line(front: Mapping[str, Selectivity]) -> list[tuple[float, float]]:
    means = [tuple(found.seeds.mean(0)) for found in front.values()]
    return sorted([(0.0, 0.0), (1.0, 1.0), *(point for point in means if np.isfinite(point).all())])


def _selectivities(one: UnderJudge) -> Markup | None:
    intervals = {
        arm.arm: arm.shares.over_seeds["S"] or arm.shares.resampled["S"] for arm in one.arms
    }
    intervals = {arm: interval for arm, interval in intervals.items() if interval}
    if not intervals:
        return None
    return plots.interval_plot(intervals, "S = τ − η", f"Selectivity ({one.judge})")


def _kinds(experiment: Experiment, judges: list[str]) -> list[tuple[str, Markup]]:
    """Bars by kind, means over seeds: the share in the form, and each judge's share harmful."""
    shown = {"In the form": lambda result: result["in_form"]["kinds"]}
    for judge in judges:
        shown[f"Harmful ({judge})"] = lambda result, judge=judge: result["judged"][judge]["kinds"]
    drawn = []
    for title, kinds_of in shown.items():
        values = {}
        for arm in experiment.arms:
            results = list(experiment.last(arm).values())
            values[arm] = {
                kind: float(np.mean([of[kind] for of in map(kinds_of, results) if kind in of]))
                for kind in kinds_of(results[0])
            }
        drawn.append((title, plots.bar_plot(values, "share of sampled answers", title)))
    return drawn
