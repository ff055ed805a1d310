"""The figures of multiple choice as rows of text, for terminals and pages."""

from emergent_alignment.evaluation.choices.scores import PairOutcome
from emergent_alignment.intervals import Interval, paired_difference
from emergent_alignment.reports.code_rows import Row
from emergent_alignment.reports.results_folder import MISSING, as_interval
from emergent_alignment.storage.json_values import as_object, finite_numbers, is_number


def choice_rows(result: dict) -> list[list[Row]]:
    """Groups of rows (measure, value with its interval, over how many): one for options that
    compete, one for A/B pairs, each only where it was measured."""
    options, pairs = as_object(result.get("options")), as_object(result.get("pairs"))
    groups = []
    if options:
        guessing = as_object(options.get("guessing"))
        groups.append(
            [
                _row(_over("MC1", guessing.get("mc1")), options.get("mc1"), "questions"),
                _row(_over("MC2", guessing.get("mc2")), options.get("mc2"), "questions"),
            ]
        )
    if pairs:
        topics = as_object(pairs.get("topics"))
        groups.append(
            [
                _row(_over("A/B accuracy", 0.5), pairs.get("accuracy"), "pairs"),
                *(_row(f"A/B accuracy: {topic}", one, "pairs") for topic, one in topics.items()),
                _row("A/B by summed margins", pairs.get("summed"), "pairs"),
                _row("A/B: both orders agree", pairs.get("agreed"), "pairs"),
                _row("A/B: says A", pairs.get("says_a"), "rows"),
            ]
        )
    return groups


def _over(label: str, chance: object) -> str:
    return f"{label} (guessing: {chance:.2f})" if is_number(chance) else label


def _row(label: str, value: object, unit: str) -> Row:
    interval = as_interval(value)
    return (
        (label, MISSING, "")
        if interval is None
        else (label, interval.text(), f"{interval.n} {unit}")
    )


def changes(before: dict, after: dict) -> list[tuple[str, Interval]]:
    """What changed from one result to another, over the items that both have: mean differences
    with paired bootstrap intervals. A measure that one of them lacks is left out."""
    differences = []
    for label, values in (("MC1", _best), ("MC2", _mass), ("A/B accuracy", _credits)):
        first, second = values(before), values(after)
        shared = [name for name in first if name in second]
        if shared:
            pairs = [[side[name] for name in shared] for side in (second, first)]
            differences.append((label, paired_difference(*pairs)))
    return differences


def _best(result: dict) -> dict[str, float]:
    return {name: values[0] for name, values in _items(result, "options")}


def _mass(result: dict) -> dict[str, float]:
    return {name: values[1] for name, values in _items(result, "options")}


def _credits(result: dict) -> dict[str, float]:
    return {name: PairOutcome(tuple(values)).credit for name, values in _items(result, "pairs")}


def _items(result: dict, part: str) -> list[tuple[str, list[float]]]:
    items = as_object(as_object(result.get(part)).get("items"))
    return [(name, values) for name, values in items.items() if len(finite_numbers(values)) == 2]
