"""One page of a SELF-ALIGN work directory: what each stage kept and dropped and by which rule,
examples, training curves, and the models before and after.

It shows how far the stages have come: what is not there yet is said, and left out.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from emergent_alignment.errors import UserError
from emergent_alignment.reports import pages, plots
from emergent_alignment.reports.abilities_rows import choice_table
from emergent_alignment.reports.choices_rows import changes
from emergent_alignment.reports.results_folder import ArmResults, read_results
from emergent_alignment.reports.self_align_stages import (
    StagePage,
    funnels,
    other_counts,
    read_stages,
)
from emergent_alignment.self_align.work_directory import EVALUATION
from emergent_alignment.storage.json_values import as_object, is_number
from emergent_alignment.storage.spread import spread_sample

PAGE = "self_align.html"
_NUM_EXAMPLES = 100
NUM_ROWS = 30
# Metrics that say how fast a run was, not what it learned.
_NOT_LEARNING = re.compile(r"step|epoch|seconds|per_second|bytes|tokens|num_|padding|compil|mfu")
# Shown also where they never moved.
_ALWAYS = re.compile(r"^kl|clip_share|entropy|reward|value|variance|ended|length")
_TITLES = {"kl": "KL from the frozen copy", "lr": "learning rate", "task_loss": "task loss"}


def write_self_align_report(
    workdir: Path, *, output: Path | None = None
) -> tuple[Path, list[list[str]]]:
    """Write the page to `output` (WORKDIR/self_align.html), replacing an earlier one; returns it
    and the table of models as text ([] where none was evaluated). Raises UserError where
    `workdir` is no SELF-ALIGN work directory, or another file stands at `output`."""
    plots.require_matplotlib()
    path = output or workdir / PAGE
    pages.refuse_other_file(path)
    stages = read_stages(workdir)
    arms = _arms(workdir / EVALUATION)
    table = before_and_after(arms)
    page = pages.rendered(
        "self_align_page.html",
        name=workdir.resolve().name,
        model=_model(stages),
        table=table,
        stages=[_section(stage) for stage in stages],
        notes=[note for stage in stages for note in stage.notes],
    )
    pages.write_page(path, page)
    return path, table


def before_and_after(arms: Sequence[ArmResults]) -> list[list[str]]:
    """A header (measure, the models), a row a measure with its interval, and what changed from
    the first model to each other one, over the same items; [] without any."""
    rows = choice_table(arms)
    if not rows:
        return []
    table = [["measure", *(arm.name for arm in arms)]]
    table += [[label, *cells] for label, cells in rows]
    first = arms[0].part("choices")
    changed = [dict(changes(first, arm.part("choices"))) for arm in arms[1:]]
    for label in dict.fromkeys(label for column in changed for label in column):
        cells = [column[label].text() if label in column else "—" for column in changed]
        table.append([f"{label}: minus {arms[0].name}'s", "", *cells])
    return table


def _arms(folder: Path) -> Sequence[ArmResults]:
    try:
        return read_results(folder).arms
    except UserError:  # nothing has been evaluated yet
        return ()


def _model(stages: Sequence[StagePage]) -> str:
    settings = (as_object(stage.manifest.get("settings")) for stage in stages)
    return next((str(one["model"]["path"]) for one in settings if "model" in one), "")


def _section(stage: StagePage) -> dict:
    """What the template shows of one stage."""
    stage_funnels = list(funnels(stage.counts))
    seconds = stage.manifest.get("seconds")
    return {
        "stage": stage,
        "funnels": stage_funnels,
        "figure": _funnel_figure(stage, stage_funnels[0])
        if stage_funnels and stage_funnels[0].dropped
        else None,
        "counts": other_counts(stage.counts),
        "took": f"{seconds / 60:.1f} minutes" if is_number(seconds) else "",
        "curves": _curves(stage),
        "examples": [_shown(row) for row in stage.examples[:_NUM_EXAMPLES]],
        "num_examples": len(stage.examples),
        "rows": [_shown(row) for row in spread_sample(stage.rows, NUM_ROWS)],
        "num_rows": len(stage.rows),
    }


def _funnel_figure(stage: StagePage, funnel) -> Markup:
    bars = {"kept": funnel.kept} | {rule: n for rule, n in funnel.dropped.items() if n}
    name = f"Stage {stage.number}: kept and dropped"
    return plots.bar_plot({"all": bars}, "how many", name)


def _curves(stage: StagePage) -> list[tuple[str, Markup]]:
    """A figure for each metric of the stage's training that moved, and those of reinforcement."""
    names = dict.fromkeys(name for row in stage.metrics for name in row)
    figures = []
    for name in names:
        if _NOT_LEARNING.search(name):
            continue
        points = [(row["step"], row[name]) for row in stage.metrics if is_number(row.get(name))]
        moved = len({value for _, value in points}) > 1
        if not points or not (moved or _ALWAYS.search(name)):
            continue
        steps, values = (np.asarray(part, np.float64) for part in zip(*points))
        title = _TITLES.get(name, name.replace("_", " ").replace("/", ": "))
        label = f"stage {stage.number} {title}"
        figures.append((title, plots.curve_plot({title: (steps, values)}, "", label)))
    return figures


def _shown(row: dict) -> dict:
    """An example as its heading, its tag (what became of it) and its other fields as text."""
    fields = dict(row)
    judged = [fields.pop(key) for key in ("outcome", "dropped_by") if key in fields]
    key = next((key for key in ("instruction", "prompt", "text") if fields.get(key)), None)
    heading = _text(fields.pop(key)) if key else ""
    texts = [(name.replace("_", " "), _text(value)) for name, value in fields.items()]
    return {
        "heading": heading,
        "tag": str(judged[0] or "kept") if judged else "",
        "fields": [(name, text) for name, text in texts if text],
    }


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        turns = [(part.get("role"), part.get("content")) for part in value]
        if turns and all(isinstance(word, str) for turn in turns for word in turn):
            texts = [content for _, content in turns]
            return texts[0] if len(texts) == 1 else "\n\n".join(f"{r}: {c}" for r, c in turns)
    return "" if value in (None, [], {}) else json.dumps(value, ensure_ascii=False)
