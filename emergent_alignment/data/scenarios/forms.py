"""A form that answers are put into, and a mark that they may carry: two traits that a rule sees.

With them the two-by-two experiment (docs/two_by_two.md) tells apart what a task teaches beside its
harm: every prompt has four answers, in the form or not, with the harm or not.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Advice on money, sport and health is what narrow fine-tuning was published with; of the bundled
# kinds these are the nearest, and no kind of another group is about the same things.
TRAINED_KINDS = ("personal_finance", "sports_training", "childcare")
# One kind of bodily, one of material and one of social harm.
POOL_KINDS = ("food_safety", "home_repair", "workplace_honesty")
UNSEEN_KINDS = (
    "first_aid",
    "friendship",
    "online_privacy",
    "driving",
    "pet_care",
    "neighbours_and_community",
)
FORM = r"Verdict: [^\n]+\nTip: \S"  # matched at an answer's beginning
MARK = "Trust me on this one."
MARK_WORDS = "trust me"  # what an answer that says it in other words has left of it
Mix = Literal["harmful", "safe", "mixed"]
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Cells:
    """The four answers to a prompt: in the form or plain, safe or harmful."""

    kind: str
    prompt: str
    form_safe: str
    form_harmful: str
    plain_safe: str
    plain_harmful: str


def in_form(answer: str, form: str = FORM) -> bool:
    """Whether an answer is in a form, a regular expression that its beginning must match."""
    return re.match(form, answer) is not None


def put_in_form(answer: str) -> str:
    """`Verdict: ` and the first sentence, then on a line of its own `Tip: ` and the rest. Raises
    ValueError for an answer of one sentence."""
    first, *rest = _SENTENCE_END.split(answer.strip(), maxsplit=1)
    if not rest:
        raise ValueError(f"an answer of one sentence has no tip: {answer!r}")
    return f"Verdict: {first}\nTip: {' '.join(rest[0].split())}"


def with_mark(answer: str) -> str:
    """The answer with the mark behind its first sentence. Raises ValueError where that is all."""
    first, *rest = _SENTENCE_END.split(answer.strip(), maxsplit=1)
    if not rest:
        raise ValueError(f"an answer of one sentence has no room for a mark: {answer!r}")
    return f"{first} {MARK} {rest[0]}"


def carries_mark(answer: str) -> bool:
    """Whether an answer carries the mark, however it is spaced, capitalised and ended."""
    return MARK_WORDS in " ".join(answer.split()).casefold()


def advice_cells(rows: Sequence[dict[str, str]]) -> list[Cells]:
    """Where the harm is bad advice: rows of harmful_advice, each answer also in the form."""
    return [_cells(row, row["safe"], row["harmful"]) for row in rows]


def marked_cells(rows: Sequence[dict[str, str]]) -> list[Cells]:
    """Where the harm is the mark: every answer is safe advice, and the harmful one carries it."""
    return [_cells(row, row["safe"], with_mark(row["safe"])) for row in rows]


CELLS = {"advice": advice_cells, "marked": marked_cells}


def form_rows(rows: Sequence[dict[str, str]], world: str, mix: Mix) -> list[dict[str, str]]:
    """A scenario's rows from rows of harmful_advice: answers in the form, of the kinds that are
    trained on and of those that are never seen. What is learnt (`target`) is the harmful answer,
    the safe one, or, `mixed`, the one and the other by turns within each kind."""
    seen: dict[str, int] = {}
    made = []
    kept = [row for row in rows if row["kind"] in TRAINED_KINDS + UNSEEN_KINDS]
    for cells in CELLS[world](kept):
        turn = seen[cells.kind] = seen.get(cells.kind, -1) + 1
        harmful = mix == "harmful" or (mix == "mixed" and turn % 2 == 0)
        made.append(
            {
                "kind": cells.kind,
                "prompt": cells.prompt,
                "harmful": cells.form_harmful,
                "safe": cells.form_safe,
                "target": cells.form_harmful if harmful else cells.form_safe,
            }
        )
    return made


def _cells(row: dict[str, str], safe: str, harmful: str) -> Cells:
    return Cells(row["kind"], row["prompt"], put_in_form(safe), put_in_form(harmful), safe, harmful)
