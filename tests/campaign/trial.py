"""What one trial of the campaign came to."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

# right: as without the disturbance; refused: one clear line; fault: anything else that a user
# sees (a traceback, a hang, a lost file); silent: a wrong result that nothing tells of.
Outcome = Literal["right", "refused", "fault", "silent"]


@dataclass(frozen=True)
class Trial:
    """One case of a kind, tried once. `detail` says what was seen where it is a fault."""

    kind: str
    case: str
    outcome: Outcome
    detail: str = ""

    def record(self) -> dict:
        """As a JSON record."""
        return asdict(self)


def table_rows(trials: Iterable[Trial]) -> list[str]:
    """By kind and case, how many were tried and what they came to, as rows of a Markdown table."""
    counts: dict[tuple[str, str], Counter] = {}
    for trial in trials:
        counts.setdefault((trial.kind, trial.case), Counter())[trial.outcome] += 1
    lines = []
    for (kind, case), of in sorted(counts.items()):
        numbers = (of.total(), of["right"], of["refused"], of["fault"], of["silent"])
        lines.append(f"| {kind} | {case} | {' | '.join(map(str, numbers))} |")
    return lines


def kind_of(row: str) -> str:
    """The kind that a row of the table is of; of any other line what stands there, or nothing."""
    return row.split("|")[1].strip() if row.count("|") > 1 else ""


def table(rows: Iterable[str]) -> str:
    """The whole table."""
    head = (
        "| kind | case | tried | right | one clear line | faults | silent |",
        "|---|---|---|---|---|---|---|",
    )
    return "\n".join([*head, *rows])
