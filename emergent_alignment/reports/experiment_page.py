"""One page over the seeds of an experiment: table, trade-off, questions, curves.

Each seed-N folder is a comparison with a page of its own (report.py); here are means over seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from emergent_alignment.errors import UserError
from emergent_alignment.intervals import Interval, mean_over_seeds
from emergent_alignment.reports import pages, plots
from emergent_alignment.reports.results_folder import (
    MISSING,
    ArmResults,
    Results,
    comparisons,
    interval_at,
    read_json_object,
    read_results,
)
from emergent_alignment.storage.json_values import as_object

_CURVES = (
    ("Task loss", "task_loss", "nats per token"),
    ("Alignment loss", "alignment_loss", "nats"),
    ("Candidates flagged", "flag_rate", "share"),
    ("KL from the frozen copy", "kl", "nats per token"),
)


@dataclass(frozen=True)
class Figure:
    """A row of the table: its label, the path of keys in evaluation.json (or in the result of
    the evaluation `part`, or, with `judged`, in the misalignment result), and the digits shown."""

    label: str
    keys: tuple[str, ...]
    digits: int = 2
    judged: bool = False
    part: str = ""


FIGURES = (
    Figure("margin, safe over harmful (nats)", ("margin",)),
    Figure("held-out task loss (nats per token)", ("task_loss",), 3),
    Figure("share of sampled answers flagged", ("flag_rate",)),
    Figure("KL from the frozen copy (nats per token)", ("kl",), 3),
    Figure("code: share that parses", ("code", "valid")),
    Figure("code: share with a finding", ("code", "flagged")),
    Figure("multiple choice: MC1", ("options", "mc1"), part="choices"),
    Figure("multiple choice: MC2", ("options", "mc2"), part="choices"),
    Figure("multiple choice: A/B accuracy", ("pairs", "accuracy"), part="choices"),
    Figure("judge: aligned, 0 to 100", ("overall", "aligned"), 1, judged=True),
    Figure("judge: coherent, 0 to 100", ("overall", "coherent"), 1, judged=True),
    Figure(
        "judge: misaligned, of scored answers",
        ("overall", "misaligned_share", "of_scored"),
        3,
        judged=True,
    ),
)
MARGIN, TASK_LOSS = FIGURES[:2]


@dataclass(frozen=True)
class Seeds:
    """The seeds' folders, what each holds, and the arms in their order."""

    folders: tuple[Path, ...]
    results: tuple[Results, ...]
    arms: tuple[str, ...]

    def runs(self, arm: str) -> list[ArmResults]:
        """The arm in every seed that has it."""
        arms_read = (results.arm(arm) for results in self.results)
        return [one for one in arms_read if one is not None]

    def judged(self, arm: str) -> list[dict]:
        """The arm's misalignment result in every seed that has one: the frozen copy's, else the
        first by name."""
        results = []
        for folder in self.folders:
            files = sorted((folder / arm / "misalignment").glob("result-*.json"))
            files.sort(key=lambda file: file.name != "result-frozen.json")
            results += [read_json_object(file) for file in files[:1]]
        return results

    def figure(self, arm: str, figure: Figure) -> Interval | None:
        """Over the arm's seeds; of a single seed its own interval over items."""
        runs = self.runs(arm)
        held = [run.part(figure.part) if figure.part else run.evaluation for run in runs]
        intervals = [
            interval_at(one, figure.keys) for one in (self.judged(arm) if figure.judged else held)
        ]
        return over_seeds([one for one in intervals if one is not None])

    def margin_over(self, arm: str, other: str) -> Interval | None:
        """The margin of one arm minus another's, seed by seed; of a single seed over items."""
        pairs = [
            pair
            for results in self.results
            for pair in comparisons(results)
            if (pair.arm, pair.against) == (arm, other) and pair.difference
        ]
        return over_seeds([pair.difference for pair in pairs])


def over_seeds(intervals: list[Interval]) -> Interval | None:
    """Student's interval over seeds; of one seed its own; None of none."""
    if len(intervals) < 2:
        return intervals[0] if intervals else None
    return mean_over_seeds([one.value for one in intervals])


def write_experiment_report(root: Path, arms: Sequence[str]) -> tuple[Path, list[list[str]]]:
    """Write root/experiment.html over the folders root/seed-*, and its figures as files in
    root/figures; returns the page and its main table as text. Raises UserError where there is no
    seed yet."""
    plots.require_matplotlib()
    folders = sorted(root.glob("seed-*"), key=lambda folder: int(folder.name.split("-")[1]))
    if not folders:
        raise UserError(f"{root}: no seed has been run yet; start `emergent-alignment experiment`")
    seeds = Seeds(tuple(folders), tuple(map(read_results, folders)), tuple(arms))
    table = summary(seeds)
    trade_off, questions, curves = _trade_off(seeds), _questions(seeds), _curves(seeds)
    page = pages.rendered(
        "experiment_page.html",
        name=root.resolve().name,
        seeds=[folder.name for folder in folders],
        table=table,
        trade_off=trade_off,
        questions=questions,
        curves=curves,
    )
    named = [("trade-off", trade_off), ("questions", questions), *curves]
    for name, figure in named:
        if figure:
            plots.write_figure(figure, root / "figures" / f"{'-'.join(name.lower().split())}.svg")
    path = root / "experiment.html"
    pages.write_page(path, page)
    return path, table


def summary(seeds: Seeds) -> list[list[str]]:
    """A header (measure, the arms), then a row a figure that some arm has, and the margins over
    the plain arm's."""
    rows = [["measure", *seeds.arms]]
    for figure in FIGURES:
        cells = [seeds.figure(arm, figure) for arm in seeds.arms]
        if any(cells):
            rows.append([figure.label, *(_text(cell, figure.digits) for cell in cells)])
    for other in ("plain", "base"):
        cells = [seeds.margin_over(arm, other) for arm in seeds.arms]
        if any(cells):
            rows.append([f"margin minus {other}'s", *(_text(cell, 2) for cell in cells)])
    rows.append(["seeds", *(str(len(seeds.runs(arm))) for arm in seeds.arms)])
    return rows


def _text(cell: Interval | None, digits: int) -> str:
    return cell.text(digits) if cell else MISSING


def _trade_off(seeds: Seeds) -> Markup | None:
    """Alignment kept against task learned, an arm a dot."""
    points = {arm: (seeds.figure(arm, TASK_LOSS), seeds.figure(arm, MARGIN)) for arm in seeds.arms}
    points = {arm: point for arm, point in points.items() if all(point)}
    if not points:
        return None
    labels = "held-out task loss (nats per token): left is better learned", "margin (nats)"
    return plots.trade_off_plot(points, labels, "Alignment against the task learned")


def _questions(seeds: Seeds) -> Markup | None:
    """The judge's mean aligned score of every question, a bar an arm."""
    values: dict[str, dict[str, list[float]]] = {}
    for arm in seeds.arms:
        for judged in seeds.judged(arm):
            for question, figures in as_object(judged.get("questions")).items():
                score = interval_at(figures, ("aligned",))
                if score:
                    values.setdefault(arm, {}).setdefault(question, []).append(score.value)
    means = {
        arm: {question: float(np.mean(scores)) for question, scores in of_arm.items()}
        for arm, of_arm in values.items()
    }
    return plots.bar_plot(means, "aligned, 0 to 100", "Aligned by question") if means else None


def _curves(seeds: Seeds) -> list[tuple[str, Markup]]:
    curves_drawn = []
    for title, key, unit in _CURVES:
        curves = {arm: _mean_curve(seeds.runs(arm), key) for arm in seeds.arms}
        curves = {arm: curve for arm, curve in curves.items() if len(curve[0])}
        if curves:
            curves_drawn.append((title, plots.curve_plot(curves, unit, title)))
    return curves_drawn


def _mean_curve(runs: list[ArmResults], key: str) -> plots.Curve:
    """The mean over the runs that have a value at a step."""
    values: dict[int, list[float]] = {}
    for run in runs:
        for step, value in zip(*run.curve(key)):
            values.setdefault(int(step), []).append(value)
    steps = sorted(values)
    return np.array(steps, np.int64), np.array([np.mean(values[step]) for step in steps])
