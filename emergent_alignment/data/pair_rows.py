"""Rows of preferences as the field's files have them, brought to prompt, chosen and rejected: the
prompt may be what both answers begin with, turns may stand in one text, and rejected answers may be
several. What a row says is read in `examples`.
"""

import re
from dataclasses import dataclass
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.storage.json_values import number_said

# What files call the scores of the two answers.
SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
)
_EARLY, NO_ANSWER = "part before their last turn", "have an empty answer"
# hh-rlhf's conversations: a blank line, and who speaks.
_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_ANSWER_TO_COME = {"role": "assistant", "content": ""}


@dataclass(frozen=True)
class NoPair:
    """A row that is well formed and makes no pair, and why."""

    reason: str


def with_prompt(row: dict, where: str) -> dict | NoPair:
    """A row with chosen and rejected that has a prompt: its own, or what both begin with. Any other
    row is given back as it is. Raises UserError for texts with no prompt and no speakers."""
    if not is_paired(row):
        return row
    row = {name: turns_of_text(value) for name, value in row.items()}
    if row.get("messages") == row["chosen"]:  # the same again, for those who learn it
        del row["messages"]
    if row.get("messages") is not None:
        return row
    prompt = row.get("prompt")
    if prompt is not None:
        asked = isinstance(prompt, list) and len(prompt) > 1 and prompt[-1] == _ANSWER_TO_COME
        return row | {"prompt": prompt[:-1]} if asked else row
    answers = [row["chosen"], row["rejected"]]
    if any(isinstance(answer, str) for answer in answers):
        raise UserError(
            f"{where}: a pair of texts without a prompt; give it one, or lists of messages, or "
            'texts that begin with "\\n\\nHuman:"'
        )
    several = _several(row["rejected"])
    answers = [row["chosen"], *(row["rejected"] if several else [row["rejected"]])]
    if not all(isinstance(answer, list) and answer for answer in answers):
        raise UserError(f"{where}: chosen and rejected must be conversations, or texts")
    shared = _shared(answers)
    if any(len(answer) > shared + 1 for answer in answers):
        return NoPair(_EARLY)
    chosen, *rejected = (answer[shared:] for answer in answers)
    if any(_says_nothing(answer[0]) for answer in (chosen, *rejected)):
        return NoPair(NO_ANSWER)
    return row | {
        "prompt": row["chosen"][:shared],
        "chosen": chosen,
        "rejected": rejected if several else rejected[0],
    }


def is_paired(row: dict) -> bool:
    """Whether a row has answers of both kinds."""
    return row.get("chosen") is not None and row.get("rejected") is not None


def row_pairs(row: dict, where: str) -> list[dict]:
    """Of a row with a prompt one for each rejected answer; a tie has the chosen as its answer, and
    makes no pair. Raises UserError where a rejected answer has the higher score."""
    rejected = row["rejected"] if _several(row["rejected"]) else [row["rejected"]]
    rest = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
    pairs = []
    for place, answer in enumerate(rejected):
        if _text(answer) == _text(row["chosen"]) or _scored_alike(row, place, where):
            pairs.append({"answer": row["chosen"]} | rest)
        else:
            pairs.append(row | {"rejected": answer})
    return pairs


def _several(rejected: Any) -> bool:
    """Whether these are answers, and not the messages of one."""
    listed = isinstance(rejected, list) and bool(rejected)
    return listed and all(isinstance(one, str | list) for one in rejected)


def turns_of_text(value: Any) -> Any:
    """The messages of a text in hh-rlhf's form, or of a list of such texts; any other value as it
    is."""
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return [turns_of_text(one) for one in value]
    if not isinstance(value, str) or not value.startswith("\n\nHuman:"):
        return value
    _, *parts = _SPEAKER.split(value)
    return [
        {"role": _ROLES[name], "content": text.strip()}
        for name, text in zip(parts[::2], parts[1::2])
    ]


def _shared(answers: list[list]) -> int:
    """How many messages all begin with; something is left of each."""
    most = min(map(len, answers)) - 1
    parting = (
        place
        for place in range(most)
        if any(answer[place] != answers[0][place] for answer in answers)
    )
    return next(parting, most)


def _says_nothing(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, str) and not content.strip()


def _text(answer: Any) -> Any:
    """What an answer says, to compare it: a text, or its last message's."""
    if isinstance(answer, list) and answer and isinstance(answer[-1], dict):
        answer = answer[-1].get("content")
    return answer.strip() if isinstance(answer, str) else answer


def _scored_alike(row: dict, place: int, where: str) -> bool:
    for better, worse in SCORES:
        chosen, rejected = row.get(better), row.get(worse)
        if isinstance(rejected, list):
            rejected = rejected[place] if place < len(rejected) else None
        chosen, rejected = number_said(chosen), number_said(rejected)
        if chosen is None or rejected is None:
            continue
        if chosen < rejected:
            raise UserError(
                f"{where}: {better} {chosen:g} is below {worse} {rejected:g}; turn the row round, "
                "or name both in config.data.ignored"
            )
        if chosen == rejected:
            return True
    return False
