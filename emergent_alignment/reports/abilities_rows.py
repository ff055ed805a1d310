"""Rows of the report's tables of code, multiple choice, capability and attacks: a label, then a
cell for each arm."""

from collections.abc import Sequence

from emergent_alignment.reports.attack_rows import attack_rows
from emergent_alignment.reports.choices_rows import choice_rows
from emergent_alignment.reports.code_rows import code_rows
from emergent_alignment.reports.results_folder import MISSING, ArmResults, as_interval
from emergent_alignment.storage.json_values import as_object

Rows = list[tuple[str, list[str]]]


def code_table(arms: Sequence[ArmResults]) -> Rows:
    """What `evaluate code` found; a row that no arm has is left out."""
    return _lined_up(
        [
            {label: value for rows in code_rows(arm.part("code")) for label, value, _ in rows}
            for arm in arms
        ]
    )


def choice_table(arms: Sequence[ArmResults]) -> Rows:
    """What `evaluate choices` found; a row that no arm has is left out."""
    return _lined_up(
        [
            {label: value for rows in choice_rows(arm.part("choices")) for label, value, _ in rows}
            for arm in arms
        ]
    )


def capability_table(arms: Sequence[ArmResults]) -> Rows:
    """Every metric of every task of `evaluate capability`, labelled "task: metric"."""
    columns = []
    for arm in arms:
        tasks = as_object(arm.part("capability").get("tasks"))
        metrics = {
            f"{task}: {metric}": as_interval(value)
            for task, result in tasks.items()
            for metric, value in as_object(as_object(result).get("metrics")).items()
        }
        columns.append({label: value.text(3) for label, value in metrics.items() if value})
    return _lined_up(columns)


def attack_table(arms: Sequence[ArmResults]) -> Rows:
    """What `evaluate attacks` found, before and after each arm's training."""
    return _lined_up([dict(attack_rows(arm.part("attacks"))) for arm in arms])


def sandboxes(arms: Sequence[ArmResults]) -> list[str]:
    """The different sentences that say what kept the arms' code in."""
    said = [as_object(arm.part("code").get("sandbox")).get("text") for arm in arms]
    return list(dict.fromkeys(str(text) for text in said if text))


def _lined_up(columns: list[dict[str, str]]) -> Rows:
    labels = dict.fromkeys(label for column in columns for label in column)
    return [(label, [column.get(label, MISSING) for column in columns]) for label in labels]
