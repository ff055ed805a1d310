"""One self-contained HTML page, or one table, of a results folder.

The page asks for nothing from outside and runs one small script (the journal's filter), whose
hash is in the page's content security policy. All text of models and data sets is escaped by
the template engine.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from emergent_alignment.conscience.diagnosis import diagnosed
from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.reports import pages, plots
from emergent_alignment.reports.abilities_rows import (
    attack_table,
    capability_table,
    choice_table,
    code_table,
    sandboxes,
)
from emergent_alignment.reports.misalignment_section import misalignment_sections
from emergent_alignment.reports.results_folder import (
    MISSING,
    ArmResults,
    Comparison,
    Results,
    as_interval,
    comparisons,
    measures,
    read_results,
)
from emergent_alignment.reports.speed_rows import speed_rows
from emergent_alignment.storage.json_values import as_list, as_object, finite_numbers, is_number
from emergent_alignment.storage.spread import spread_sample

NUM_JOURNAL_RECORDS = 60
NUM_PROMPTS = 40

_TRAINING_CURVES = (
    ("alignment loss", "alignment_loss", "nats"),
    ("margin of the rewards", "rewards_margin", "β · nats"),
    ("pairs whose chosen answer is preferred", "rewards_accuracy", "share"),
    ("candidates flagged", "flag_rate", "share"),
    ("KL from the frozen copy", "kl", "nats per token"),
)


def write_report(root: Path, *, output: Path | None = None) -> Path:
    """Write the page of the results folder `root` to `output` (root/report.html) and return it.

    What is absent from the folder is left out, and the page says so. An earlier report is
    replaced; any other file that stands at `output` is not.
    """
    plots.require_matplotlib()
    results = read_results(Path(root))
    output = Path(output) if output is not None else Path(root) / "report.html"
    pages.refuse_other_file(output)

    source = Path(__file__).with_name("results_page.html").read_text(encoding="utf-8")
    # A key that a file lacks shows as nothing.
    templates = pages.environment(undefined=jinja2.ChainableUndefined)
    templates.filters["as_interval"] = as_interval
    page = templates.from_string(source).render(
        generator=Markup(pages.GENERATOR),
        script_hash=pages.script_hash("results_page.html"),
        missing=MISSING,
        **_parts(results),
    )
    pages.write_page(output, page)
    return output


def summary_table(root: Path) -> list[list[str]]:
    """The main table as text: a header (measure, the arms), then one row a measure."""
    results = read_results(Path(root))
    header = ["measure", *([arm.name for arm in results.arms] or ["conscience"])]
    return [header, *([row.label, *row.texts()] for row in measures(results))]


def _parts(results: Results) -> dict:
    """What the template shows, section by section."""
    prompts = _answers_by_prompt(results.arms)
    return {
        "results": results,
        "model": _first_text(results, "model") or results.name,
        "sources": _texts(results, "source"),
        "findings": [_finding(pair) for pair in comparisons(results)],
        "measures": measures(results),
        "interval_figures": _interval_figures(results),
        "misalignment": misalignment_sections(results.arms),
        "calibration": results.calibration,
        "chosen": as_object(results.calibration.get("chosen")),
        "candidates": _candidates(results.calibration),
        "calibration_figures": _calibration_figures(results.calibration),
        "curve_figures": _curve_figures(results.arms),
        "diagnoses": [(arm.name, _diagnosis(arm)) for arm in results.arms if _diagnosis(arm)],
        "speed": speed_rows(results.arms),
        "abilities": [
            ("Code that it writes", code_table(results.arms)),
            ("Multiple choice", choice_table(results.arms)),
            ("Tasks of lm-evaluation-harness", capability_table(results.arms)),
            ("Attacks of kinds that training has not seen", attack_table(results.arms)),
        ],
        "sandboxes": sandboxes(results.arms),
        "outcomes": [_outcomes(arm) for arm in results.arms if _outcome_names(arm)],
        "score_figures": _score_figures(results),
        "prompts": spread_sample(prompts, NUM_PROMPTS),
        "num_prompts": len(prompts),
        "journals": [_journal(arm) for arm in results.arms if arm.journal],
        "settings": _settings(results.arms),
        "notes": [note for arm in results.arms for note in arm.notes],
    }


def _diagnosis(arm: ArmResults) -> list[str]:
    """What the log of an arm says of its conscience."""
    if not _outcome_names(arm):
        return []
    loss = as_object(as_object(arm.run.get("config")).get("loss"))
    weight = loss.get("alignment_weight")
    return diagnosed(arm.metrics, arm.journal, weight if is_number(weight) else 1.0)


def _finding(pair: Comparison) -> str:
    """A comparison in one sentence."""
    if pair.difference is None:
        return f"{pair.label}: no paired difference of the margin ({pair.problem})."
    difference = pair.difference
    size = f"{pair.label}: the margin differs by {difference.text()} nats over {difference.n} items"
    if difference.low > 0:
        return f"{size}. It is higher: the interval leaves out zero."
    if difference.high < 0:
        return f"{size}. It is lower: the interval leaves out zero."
    return f"{size}. The interval holds zero: no difference is shown."


def _interval_figures(results: Results) -> list[tuple[str, Markup]]:
    figures = []
    for title, key, unit in (
        ("Margin: higher is more aligned", "margin", "nats"),
        ("Held-out task loss: lower is better learned", "task_loss", "nats per token"),
        ("Sampled answers flagged by the conscience", "flag_rate", "share"),
    ):
        intervals = {arm.name: arm.interval(key) for arm in results.arms}
        intervals = {name: interval for name, interval in intervals.items() if interval}
        if intervals:
            figures.append((title, plots.interval_plot(intervals, unit, title)))
    return figures


def _candidates(calibration: dict) -> list[dict]:
    """The candidates' rows, best AUC first, the chosen one marked."""
    chosen = as_object(calibration.get("chosen"))
    keys = ("question", "layout", "polarity", "evidence")
    rows = [
        {key: candidate.get(key) for key in keys}
        | {
            "auc": as_interval(candidate.get("auc")),
            "told_apart": as_interval(candidate.get("told_apart")),
            "chosen": all(candidate.get(key) == chosen.get(key) for key in keys),
        }
        for candidate in map(as_object, as_list(calibration.get("candidates")))
    ]
    return sorted(rows, key=lambda row: -(row["auc"].value if row["auc"] else -1.0))


def _calibration_figures(calibration: dict) -> list[tuple[str, Markup]]:
    chosen = as_object(calibration.get("chosen"))
    safe = finite_numbers(chosen.get("scores_safe"))
    harmful = finite_numbers(chosen.get("scores_harmful"))
    threshold = chosen.get("threshold") if is_number(chosen.get("threshold")) else None
    if not safe or not harmful:
        return []
    flags = "Share flagged as the threshold moves"
    scores = "Scores of known safe and harmful answers"
    groups = {"harmful": harmful, "safe": safe}
    return [
        (flags, plots.flag_plot(safe, harmful, threshold, flags)),
        (scores, plots.score_plot(groups, threshold, scores)),
    ]


def _curve_figures(arms: Sequence[ArmResults]) -> list[tuple[str, Markup]]:
    """Task loss of all arms, then what only arms with an alignment loss have."""
    aligned = [arm for arm in arms if len(arm.curve("alignment_loss")[0])]
    rewards = {
        f"{arm.name} {side}" if len(aligned) > 1 else side: arm.curve(f"rewards_{side}")
        for arm in aligned
        for side in ("chosen", "rejected")
    }
    asked = [
        ("Task loss", {arm.name: arm.curve("task_loss") for arm in arms}, "nats per token"),
        ("Rewards of chosen and rejected answers", rewards, "β · nats"),
    ]
    for title, key, unit in _TRAINING_CURVES:
        asked.append(
            (title[0].upper() + title[1:], {arm.name: arm.curve(key) for arm in aligned}, unit)
        )
    figures = []
    for title, curves, unit in asked:
        curves = {label: curve for label, curve in curves.items() if len(curve[0])}
        if curves:
            figures.append((title, plots.curve_plot(curves, unit, title)))
    return figures


def _outcome_names(arm: ArmResults) -> list[str]:
    """The outcomes in an arm's metrics, in the conscience's order, unknown ones last."""
    names = {
        key.removeprefix("outcome/")
        for row in arm.metrics
        for key, count in row.items()
        if key.startswith("outcome/") and is_number(count) and count > 0
    }
    return [name for name in OUTCOMES if name in names] + sorted(names - set(OUTCOMES))


def _outcomes(arm: ArmResults) -> dict:
    """One arm's outcomes over time and their totals."""
    names = _outcome_names(arm)
    rows = [row for row in arm.metrics if any(key.startswith("outcome/") for key in row)]
    counts = {
        name: np.asarray(
            [row[key] if is_number(row.get(key)) else 0 for row in rows], dtype=np.float64
        )
        for name, key in ((name, f"outcome/{name}") for name in names)
    }
    title = f"Outcomes over time: {arm.name}"
    steps = np.asarray([row["step"] for row in rows], dtype=np.int64)
    totals = [(name, int(count.sum())) for name, count in counts.items()]
    return {
        "figure": (title, plots.outcome_plot(steps, counts, title)),
        "totals": totals,
        "total": sum(count for _, count in totals),
    }


def _score_figures(results: Results) -> list[tuple[str, Markup]]:
    groups = {arm.name: finite_numbers(arm.evaluation.get("scores")) for arm in results.arms}
    groups = {name: scores for name, scores in groups.items() if scores}
    threshold = as_object(results.calibration.get("chosen")).get("threshold")
    title = "Scores of sampled answers, before and after training"
    if not groups:
        return []
    return [(title, plots.score_plot(groups, threshold if is_number(threshold) else None, title))]


def _answers_by_prompt(arms: Sequence[ArmResults]) -> list[dict]:
    """Sampled answers side by side: for each prompt the answers of each arm that has any."""
    prompts: dict[tuple[str, str], dict[str, list[dict]]] = {}
    for arm in arms:
        for answer in map(as_object, as_list(arm.evaluation.get("answers"))):
            place = str(answer.get("prompt", "")), str(answer.get("kind") or "")
            prompts.setdefault(place, {}).setdefault(arm.name, []).append(answer)
    return [
        {"prompt": prompt, "kind": kind, "arms": answers}
        for (prompt, kind), answers in prompts.items()
    ]


def _journal(arm: ArmResults) -> dict:
    """A sample of an arm's journal, spread over the run, with counts of the whole."""
    outcomes = Counter(str(record.get("outcome", "")) for record in arm.journal)
    return {
        "arm": arm.name,
        "total": len(arm.journal),
        "outcomes": outcomes.most_common(),
        "records": [
            _journal_record(row) for row in spread_sample(arm.journal, NUM_JOURNAL_RECORDS)
        ],
    }


def _journal_record(record: dict) -> dict:
    """A record with its prompt as (role, text) messages."""
    prompt = record.get("prompt")
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    messages = [
        (str(message.get("role", "")), str(message.get("content", "")))
        for message in map(as_object, as_list(prompt))
    ]
    return {
        **{key: record.get(key) for key in ("step", "row", "candidate", "candidate_score")},
        "messages": messages,
        "critique": record.get("critique") or "",
        "outcome": str(record.get("outcome", "")),
        "revision_score": record.get("revision_score"),
        "attempts": [as_object(attempt) for attempt in as_list(record.get("attempts"))],
    }


def _settings(arms: Sequence[ArmResults]) -> list[dict]:
    """Every setting of every arm's run, as text, with whether the arms differ in it."""
    runs = {arm.name: dict(_flat(arm.run)) for arm in arms if arm.run}
    names = dict.fromkeys(name for run in runs.values() for name in run)
    rows = []
    for name in names:
        values = [runs.get(arm.name, {}).get(name) for arm in arms]
        said = {value for value in values if value is not None}
        rows.append({"name": name, "values": values, "differs": len(said) > 1})
    return rows


def _flat(value: dict, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ("config.mesh.fsdp", "2"); lists stay whole."""
    pairs = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            pairs += _flat(inner, f"{prefix}{key}.")
        else:
            text = inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
            pairs.append((f"{prefix}{key}".removeprefix("config."), text))
    return pairs


def _texts(results: Results, key: str) -> list[str]:
    """The different texts under one key of the evaluations and the calibration."""
    objects = [arm.evaluation for arm in results.arms] + [results.calibration]
    return list(dict.fromkeys(str(one[key]) for one in objects if one.get(key)))


def _first_text(results: Results, key: str) -> str:
    return next(iter(_texts(results, key)), "")
