"""Reads what the stages of a SELF-ALIGN work directory left, however far they came; no HTML."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.reports.results_folder import as_interval, read_json_object, read_metrics
from emergent_alignment.self_align.work_directory import STAGES, stage_paths
from emergent_alignment.storage.json_values import as_list, as_object, is_number, parse_json

TITLES = {
    1: "Topic-guided red-teaming self-instruct",
    2: "Principle-driven self-alignment",
    3: "Principle engraving",
    4: "Reinforcement",
}


@dataclass(frozen=True)
class StagePage:
    """One stage as the page shows it; empty where a file is absent.

    state     "done", "begun" or "not begun"
    manifest  manifest.json, {} where the stage is not done
    rows      the rows of data.jsonl
    metrics   the steps of its training, by step
    notes     what could not be read, in words for the page
    """

    number: int
    state: str
    manifest: dict
    rows: tuple[dict, ...]
    metrics: tuple[dict, ...]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        return STAGES[self.number]

    @property
    def title(self) -> str:
        return TITLES[self.number]

    @property
    def counts(self) -> dict:
        return as_object(self.manifest.get("counts"))

    @property
    def examples(self) -> list[dict]:
        return [as_object(example) for example in as_list(self.manifest.get("examples"))]


@dataclass(frozen=True)
class Funnel:
    """What came in, what was kept, and how many each rule dropped."""

    name: str
    made: int
    kept: int
    dropped: dict[str, int]

    def texts(self) -> list[tuple[str, str, str]]:
        """(what, how many, of all that were made), for a table."""
        rows = [("made", self.made), ("kept", self.kept)]
        rows += [(f"dropped: {rule}", count) for rule, count in self.dropped.items()]
        return [(label, f"{count:,}", _share(count, self.made)) for label, count in rows]


def is_self_align(folder: Path) -> bool:
    """Whether a stage of SELF-ALIGN has begun in this folder."""
    return any(stage_paths(folder, number).claim_file.is_file() for number in STAGES)


def read_stages(workdir: Path) -> list[StagePage]:
    """The four stages of a work directory. Raises UserError where it is none."""
    if not workdir.is_dir():
        raise UserError(f"{workdir}: no such folder; give the --workdir of `self-align`")
    stages = [_read_stage(workdir, number) for number in STAGES]
    if all(stage.state == "not begun" for stage in stages):
        raise UserError(
            f"{workdir}: no stage has begun here; run `emergent-alignment self-align --workdir` "
            "on it first"
        )
    return stages


def funnels(counts: dict, name: str = "all") -> Iterator[Funnel]:
    """Every part of a stage's counts that is a funnel, nested ones under their own names."""
    made, kept, dropped = (counts.get(key) for key in ("made", "kept", "dropped"))
    if is_number(made) and is_number(kept):
        by_rule = {rule: n for rule, n in as_object(dropped).items() if is_number(n)}
        yield Funnel(name, int(made), int(kept), by_rule)
    for key, inner in counts.items():
        if isinstance(inner, dict) and key != "dropped":
            yield from funnels(inner, key)


def other_counts(counts: dict) -> list[tuple[str, str]]:
    """What a stage counted beside its funnels: single numbers, and tables of numbers in one
    line."""
    rows = []
    for key, value in counts.items():
        if key in ("made", "kept", "dropped"):
            continue
        label = key.replace("_", " ")
        if is_number(value):
            rows.append((label, _figure(value)))
        elif isinstance(value, str):
            rows.append((label, value))
        elif isinstance(value, dict) and "made" not in value:
            texts = [(name, _figure(inner)) for name, inner in value.items()]
            shown = [f"{name} {text}" for name, text in texts if text]
            if shown:
                rows.append((label, ", ".join(shown)))
    return rows


def _figure(value: object) -> str:
    """A number, or an interval, as text; of anything else nothing."""
    interval = as_interval(value) if isinstance(value, dict) else None
    if interval is not None:
        return f"{interval.text()} of {interval.n:,}"
    if not is_number(value):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _read_stage(workdir: Path, number: int) -> StagePage:
    stage, notes = stage_paths(workdir, number), []
    manifest: dict = {}
    try:
        manifest = read_json_object(stage.manifest_file)
    except UserError as error:
        notes.append(str(error))
    begun = stage.claim_file.is_file()
    metrics, unreadable = read_metrics(stage.run / "metrics.jsonl")
    rows, torn = _read_rows(stage.data)
    state = "done" if manifest else "begun" if begun else "not begun"
    return StagePage(
        number, state, manifest, tuple(rows), tuple(metrics), (*notes, *unreadable, *torn)
    )


def _read_rows(path: Path) -> tuple[list[dict], list[str]]:
    """The rows that can be read, and a note where some cannot."""
    if not path.is_file():
        return [], []
    rows, unreadable = [], []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            unreadable.append(str(number))
    where = f"{path.parent.name}/{path.name}"
    shown = ", ".join(unreadable[:5]) + (", …" if len(unreadable) > 5 else "")
    return rows, [f"{where}: left out unreadable lines {shown}"] if unreadable else []


def _share(count: int, made: int) -> str:
    return f"{count / made:.1%}" if made else ""
