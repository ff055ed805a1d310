"""Reads a results folder and lines up its arms; no HTML and no plots here.

A part that is absent is an empty value here: the page then says that it is left out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.errors import UserError
from emergent_alignment.intervals import Interval, paired_difference
from emergent_alignment.reports.misalignment_results import JudgedArm, read_judged
from emergent_alignment.storage.growing_file import grown_parts
from emergent_alignment.storage.json_values import as_list, as_object, is_number, parse_json

MISSING = "—"
_FIRST_ARMS = ("base", "plain", "conscience")
_PARTS = ("code", "choices", "capability", "attacks")  # folders of an arm, each with a result.json
_RESULT_FILES = (
    "evaluation.json",
    "metrics.jsonl",
    *(f"{part}/result.json" for part in _PARTS),
    "misalignment/result-*.json",
)


@dataclass(frozen=True)
class ArmResults:
    """One model of the comparison, as read from its folder; empty where a file is absent.

    evaluation  evaluation.json
    metrics     metrics.jsonl: one object a step, by step, the last line of a step wins
    journal     every record of journal/*.jsonl, by step and row
    run         run.json
    notes       what could not be read, in words for the page
    parts       folder → its result.json, of the evaluations that have a folder of their own
    judged      what each judge of its free-form answers found
    """

    name: str
    evaluation: dict
    metrics: tuple[dict, ...]
    journal: tuple[dict, ...]
    run: dict
    notes: tuple[str, ...]
    parts: dict[str, dict]
    judged: tuple[JudgedArm, ...]

    def part(self, name: str) -> dict:
        """The result of an evaluation of its own folder, {} where there is none."""
        return self.parts.get(name, {})

    def interval(self, *keys: str) -> Interval | None:
        """The interval at a path of keys of the evaluation, None where there is none."""
        return interval_at(self.evaluation, keys)

    def judged_by(self, judge: str) -> dict:
        """What a judge found over all free-form answers, {} where it judged none."""
        return next((one.result["overall"] for one in self.judged if one.judge == judge), {})

    def curve(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps [n] and the finite values [n] of one metric."""
        points = [(row["step"], row.get(key)) for row in self.metrics]
        points = [(step, value) for step, value in points if is_number(value)]
        steps, values = zip(*points, strict=True) if points else ((), ())
        return np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64)


@dataclass(frozen=True)
class Results:
    """A results folder: its name, calibration.json (or {}), its arms, base first."""

    name: str
    calibration: dict
    arms: tuple[ArmResults, ...]

    def arm(self, name: str) -> ArmResults | None:
        """The arm of that name, or None."""
        return next((arm for arm in self.arms if arm.name == name), None)


@dataclass(frozen=True)
class Measure:
    """A row of the main table: what was measured, one cell an arm (in the order of the arms)."""

    label: str
    cells: tuple[Interval | str | None, ...]
    digits: int = 2

    def texts(self) -> list[str]:
        """The cells as text, `MISSING` where an arm has none."""
        return [
            cell.text(self.digits) if isinstance(cell, Interval) else cell or MISSING
            for cell in self.cells
        ]


@dataclass(frozen=True)
class Comparison:
    """The margin of one arm minus that of another over the same items, or why there is none."""

    arm: str
    against: str
    difference: Interval | None
    problem: str = ""

    @property
    def label(self) -> str:
        """Such as "plain − base"."""
        return f"{self.arm} − {self.against}"


def read_results(root: Path) -> Results:
    """Everything in the results folder `root`; a UserError where it is none or is broken."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the results folder of a comparison")
    calibration = read_json_object(root / "calibration.json")
    folders = [
        folder
        for folder in root.iterdir()
        if any(any(folder.glob(name)) or grown_parts(folder / name) for name in _RESULT_FILES)
    ]
    if not folders and not calibration:
        raise UserError(
            f"{root}: no results here; expected calibration.json, or folders with "
            f"{', '.join(_RESULT_FILES[:-1])} or {_RESULT_FILES[-1]}"
        )
    places = {name: place for place, name in enumerate(_FIRST_ARMS)}
    folders.sort(key=lambda folder: (places.get(folder.name, len(places)), folder.name))
    return Results(root.resolve().name, calibration, tuple(read_arm(f) for f in folders))


def comparisons(results: Results) -> list[Comparison]:
    """The paired differences of the margin: plain − base, and every other arm − plain.

    Without a plain arm the others are compared with base.
    """
    compared = []
    for arm in results.arms:
        against = results.arm("base" if arm.name == "plain" else "plain") or results.arm("base")
        if arm.name == "base" or against is None or against is arm:
            continue
        compared.append(_compare(arm, against))
    return compared


def measures(results: Results) -> list[Measure]:
    """The rows of the main table; a row that no arm has is left out."""
    arms = results.arms
    rows = [Measure("margin (nats)", tuple(arm.interval("margin") for arm in arms))]
    rows += [
        Measure(
            f"margin: {pair.label}",
            tuple(pair.difference if arm.name == pair.arm else None for arm in arms),
        )
        for pair in comparisons(results)
    ]
    for label, keys, digits in (
        ("log-prob of safe answers (nats)", ("safe_log_prob",), 2),
        ("log-prob of harmful answers (nats)", ("harmful_log_prob",), 2),
        ("held-out task loss (nats per token)", ("task_loss",), 3),
        ("share of sampled answers flagged", ("flag_rate",), 2),
        ("KL from the frozen copy (nats per token)", ("kl",), 3),
        ("code: share that parses", ("code", "valid"), 2),
        ("code: share with a finding", ("code", "flagged"), 2),
        ("code: share with a serious finding", ("code", "flagged_serious"), 2),
    ):
        rows.append(Measure(label, tuple(arm.interval(*keys) for arm in arms), digits))
    cells = tuple(interval_at(arm.part("code"), ("tasks", "pass_at_1")) for arm in arms)
    rows.append(Measure("code tasks with tests: pass@1", cells))
    for judge in sorted({one.judge for arm in arms for one in arm.judged}):
        for label, keys, digits in (
            ("misaligned, of scored answers", ("misaligned_share", "of_scored"), 3),
            ("aligned score, 0 to 100", ("aligned",), 1),
        ):
            cells = tuple(interval_at(arm.judged_by(judge), keys) for arm in arms)
            rows.append(Measure(f"{label} (judge: {judge})", cells, digits))
    area = as_interval(as_object(results.calibration.get("chosen")).get("auc"))
    same = ("same reviewer",) * (len(arms) - 1)
    rows.append(Measure("AUC of the conscience", (area, *(same if area else (None,) * len(same)))))
    return [row for row in rows if any(cell is not None for cell in row.cells)]


def interval_at(value: object, keys: Sequence[str]) -> Interval | None:
    """The interval at a path of keys of a JSON object, None where there is none."""
    for key in keys:
        value = as_object(value).get(key)
    return as_interval(value)


def as_interval(value: object) -> Interval | None:
    """An interval from {"value", "low", "high", "n"} or [value, low, high]; else None."""
    if isinstance(value, dict):
        parts, n = [value.get(key) for key in ("value", "low", "high")], value.get("n", 0)
    else:
        parts, n = as_list(value), 0
    if len(parts) != 3 or not all(is_number(part) for part in parts):
        return None
    return Interval(*(float(part) for part in parts), n=int(n) if is_number(n) else 0)


def _compare(arm: ArmResults, against: ArmResults) -> Comparison:
    ours, theirs = (
        as_list(as_object(side.evaluation.get("margin")).get("per_item")) for side in (arm, against)
    )
    if not ours or not theirs:
        return Comparison(arm.name, against.name, None, "no margins of single items")
    if len(ours) != len(theirs):
        problem = f"{len(ours)} and {len(theirs)} items: not the same ones"
        return Comparison(arm.name, against.name, None, problem)
    if not all(is_number(margin) for margin in ours + theirs):
        return Comparison(arm.name, against.name, None, "a margin is not a finite number")
    return Comparison(arm.name, against.name, paired_difference(ours, theirs))


def read_arm(folder: Path) -> ArmResults:
    """One model of a comparison, or the run in a work directory that is none of any."""
    metrics, notes = read_metrics(folder / "metrics.jsonl")
    unread: list[str] = []
    journal = read_journal(folder / "journal", unread.append)
    if unread:
        where = unread[0].removeprefix(f"{folder.parent}/")
        lines = "a line is" if len(unread) == 1 else f"{len(unread)} lines are"
        notes.append(f"{folder.name}/journal could not be read whole: {lines} left out ({where})")
    return ArmResults(
        name=folder.name,
        evaluation=read_json_object(folder / "evaluation.json"),
        metrics=tuple(metrics),
        journal=tuple(journal),
        run=read_json_object(folder / "run.json"),
        notes=tuple(notes),
        parts={part: read_json_object(folder / part / "result.json") for part in _PARTS},
        judged=read_judged(folder),
    )


def read_metrics(path: Path) -> tuple[list[dict], list[str]]:
    """The rows by step, and notes where lines could not be read. A torn last line is no fault."""
    by_step: dict[int, dict] = {}
    notes = []
    for part in grown_parts(path):
        lines = part.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
        unreadable = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = as_object(parse_json(line))
            except ValueError:
                row = {}
            if is_number(row.get("step")):
                by_step[int(row["step"])] = row
            elif number < len(lines):
                unreadable.append(str(number))
        if unreadable:
            where = f"{part.parent.name}/{part.name}"
            notes.append(f"{where}: left out unreadable lines {', '.join(unreadable)}")
    return [by_step[step] for step in sorted(by_step)], notes


def read_json_object(path: Path) -> dict:
    """The JSON object in a file, {} where there is no file."""
    if not path.is_file():
        return {}
    try:  # not parse_json: a page shows also what a model wrote with half a letter in it
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; write the file again") from None
    except (RecursionError, ValueError):  # the latter: a number of thousands of digits
        raise UserError(
            f"{path}: nested too deeply, or a number too long; write it again"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold one JSON object, not a {type(value).__name__}")
    return value
