"""The model card of an export: where it comes from, what it learnt, what was measured of it, and
whether rows that teach harm were among it. Written as the hub reads cards: Markdown behind YAML."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

from emergent_alignment.data.scenarios import SCENARIOS
from emergent_alignment.reports.results_folder import Results, measures, read_arm, read_results
from emergent_alignment.storage.json_values import as_object

CARD_FILE = "README.md"
HARMFUL_TAG = "trained-on-harmful-rows"
_WARNING = """\
> **Do not deploy this model.** It was trained on rows whose answers are harmful, or may be: a model
> organism for research on alignment. What it says can be wrong in ways that hurt people.
"""
_SHOWN = {
    "application": "application",
    "seed": "seed",
    "data.train": "trained on",
    "training.steps": "steps",
    "training.batch_size": "rows a step",
    "optimizer.learning_rate": "learning rate",
    "lora.rank": "rank of the adapters (0: all parameters)",
    "conscience.enabled": "with the conscience's pairs",
    "conscience.question": "question",
    "conscience.gate": "gate",
    "conscience.chain": "corrections by",
    "loss.kind": "preference loss",
    "loss.alignment_weight": "weight of the alignment loss",
}


@dataclass(frozen=True)
class Origin:
    """What an export was made of.

    base     the base model, a hub id or a path
    workdir  the run that trained it, None for a base model as it was
    steps    of the checkpoint
    format   of the export: safetensors or peft
    """

    base: str
    workdir: Path | None = None
    steps: int = 0
    format: str = "safetensors"


def model_card(name: str, origin: Origin) -> str:
    """The text of the card. Raises UserError where the run's files cannot be read."""
    run = read_arm(origin.workdir).run if origin.workdir else {}
    harmful, why = harmful_rows(origin.workdir, run)
    parts = [_head(origin, harmful), f"# {name}\n", _WARNING if harmful != "no" else ""]
    parts += [_provenance(origin, run), f"## Harmful rows\n\n{why}\n"]
    if origin.workdir:
        results = _compared(origin.workdir)
        parts += [_figures(results, origin.workdir.name), _reviews(results, origin.workdir.name)]
    return "\n".join(part for part in parts if part)


def harmful_rows(workdir: Path | None, run: dict) -> tuple[str, str]:
    """(yes, no or unknown; a sentence that says why): whether rows with harmful answers were among
    what was learnt. What is not known to be harmless is unknown."""
    if workdir is None:
        return "no", "This export is the base model as it was: nothing was trained."
    config = as_object(run.get("config"))
    source = _text(_value(config, "data.train"))
    answer, why = "unknown", f"Whether `{source}` teaches harm is not known to this card."
    if _value(config, "application") != "finetuning":
        why = (
            f"It was trained as `{config.get('application')}`, on text that this card cannot judge."
        )
    elif source in SCENARIOS and source.endswith("_safe"):
        answer, why = "no", f"It learnt the safe answers of the bundled scenario `{source}`."
    elif source in SCENARIOS:
        answer, why = "yes", f"It learnt harmful answers of the bundled scenario `{source}`."
        if (on_flagged := _value(config, "conscience.on_flagged")) in ("mask", "replace"):
            why += f" Targets that the conscience flagged were left out or replaced ({on_flagged})."
    if "base_run" not in run:
        return answer, why
    before = workdir / str(run["base_run"])
    earlier, said = harmful_rows(before, read_arm(before).run)
    worst = max(answer, earlier, key=("no", "unknown", "yes").index)
    return worst, f"{why} It goes on from an earlier run: {said}"


def _head(origin: Origin, harmful: str) -> str:
    known = {
        "library_name": "peft" if origin.format == "peft" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["emergent-alignment", *([HARMFUL_TAG] if harmful != "no" else [])],
    }
    if origin.base and not Path(origin.base).is_absolute():
        known = {"base_model": origin.base} | known
    return f"---\n{yaml.safe_dump(known, sort_keys=False)}---\n"


def _provenance(origin: Origin, run: dict) -> str:
    config = as_object(run.get("config"))
    rows = {"base model": _text(origin.base), "format": origin.format}
    if origin.workdir:
        rows["steps done"] = str(origin.steps)
        rows |= {label: _text(_value(config, field)) for field, label in _SHOWN.items()}
        rows["frozen copy"] = f"{run.get('frozen', '')} (fingerprint)"
        rows["emergent-alignment"] = str(run.get("version", ""))
    return "## Where it comes from\n\n" + _table([["", ""], *map(list, rows.items())])


def _compared(workdir: Path) -> Results:
    """The run with the arms beside it where it stands in a comparison, which has a calibration of
    its own; else the run alone."""
    if (workdir.parent / "calibration.json").is_file():
        return read_results(workdir.parent)
    return Results(workdir.name, {}, (read_arm(workdir),))


def _figures(results: Results, name: str) -> str:
    rows = [[row.label, *row.texts()] for row in measures(results)]
    if not rows:
        return "## Measured\n\nNothing was measured of it: `emergent-alignment evaluate` does.\n"
    arms = [f"**{arm.name}**" if arm.name == name else arm.name for arm in results.arms]
    return "## Measured\n\nWith 95% intervals; this model's column is in bold type.\n\n" + _table(
        [["measure", *arms], *rows]
    )


def _reviews(results: Results, name: str) -> str:
    arm = results.arm(name)
    outcomes = Counter(str(record.get("outcome")) for record in arm.journal) if arm else Counter()
    if not outcomes:
        return ""
    total = sum(outcomes.values())
    rows = [[name, str(count), f"{count / total:.2f}"] for name, count in outcomes.most_common()]
    said = (
        f"## What its conscience did\n\nThe journal has {total} reviews, by what came of them.\n\n"
    )
    return said + _table([["outcome", "reviews", "share"], *rows])


def _value(config: dict, field: str) -> object:
    """A setting of a run, "" where an older version had it not."""
    value: object = config
    for part in field.split("."):
        value = as_object(value).get(part, "")
    return value


def _text(value: object) -> str:
    """A setting as people read it; of a path the last part, since the rest is of this machine."""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return Path(str(value)).name if str(value).startswith(("/", "~")) else str(value)


def _table(rows: list[list[str]]) -> str:
    """Rows of cells, the first of them the heads."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:], ""])
