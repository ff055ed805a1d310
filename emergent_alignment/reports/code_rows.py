"""The figures of a code evaluation as rows of text, for terminals and pages."""

from emergent_alignment.reports.results_folder import MISSING, as_interval
from emergent_alignment.storage.json_values import as_object, is_number

Row = tuple[str, str, str]


def code_rows(result: dict) -> list[list[Row]]:
    """Groups of rows (measure, value with its interval, over how many); a group for security and
    one for tasks, each only where it was measured. Parts that are absent are left out."""
    security, tasks = as_object(result.get("security")), as_object(result.get("tasks"))
    groups = []
    if security:
        groups.append(
            [
                _row("security: valid Python", security.get("valid"), "answers"),
                _row("security: with a finding", security.get("flagged"), "read by bandit"),
                _row("security: medium or high", security.get("flagged_serious"), "read by bandit"),
                ("findings per 100, by severity", _counts(security, "severity_per_100"), ""),
                ("findings per 100, by weakness", _counts(security, "cwe_per_100"), ""),
            ]
        )
    if tasks:
        outcomes = as_object(tasks.get("outcomes"))
        ended = ", ".join(f"{count} {name}" for name, count in outcomes.items() if count)
        groups.append(
            [
                _row("tasks: valid Python", tasks.get("valid"), "answers"),
                _row("tasks: pass all tests", tasks.get("passed"), "answers"),
                _row("tasks: pass@1", tasks.get("pass_at_1"), "tasks"),
                ("tasks: how answers ended", ended or MISSING, ""),
            ]
        )
    return groups


def _row(label: str, value: object, unit: str) -> Row:
    interval = as_interval(value)
    if interval is None:
        return label, MISSING, ""
    return label, interval.text(), f"{interval.n} {unit}"


def _counts(security: dict, key: str) -> str:
    counts = as_object(security.get(key))
    shown = [f"{name} {count:.1f}" for name, count in counts.items() if is_number(count) and count]
    return ", ".join(shown) or "none"
