"""Preferences as rows: a prompt, the better and the worse of two answers to it, and by which
guidelines. Where they come from people they are read here; principle_preferences.py makes others.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emergent_alignment.data.chat import Chat
from emergent_alignment.data.examples import check_telling, example_of
from emergent_alignment.data.messages import Message
from emergent_alignment.data.row_files import json_lines
from emergent_alignment.data.scenarios import SCENARIOS, load_scenario
from emergent_alignment.errors import UserError
from emergent_alignment.storage.json_values import digest
from emergent_alignment.storage.spread import limited

_EXPECTED = 'expected {"prompt": a text or messages, "chosen": a text, "rejected": another text}'
# Fields in which some files say how good each answer was.
RATED = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))
_GUIDELINES = "What a good answer is like here:"


@dataclass(frozen=True)
class Preference:
    """One comparison.

    prompt      the conversation so far
    chosen      the better answer, and `rejected` the worse one
    ended       whether each of the two ended by itself
    guidelines  what the two were compared by, in words; none where people compared them
    margin      how much better, in nats; 0 where nobody said
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    ended: tuple[bool, bool] = (True, True)
    guidelines: tuple[str, ...] = ()
    margin: float = 0.0

    def row(self) -> dict[str, Any]:
        """As a row of data.jsonl."""
        return vars(self) | {"prompt": list(self.prompt)}

    @property
    def prompt_digest(self) -> str:
        """Hex digits that say which prompt it is."""
        return hashlib.sha256(json.dumps(self.prompt).encode()).hexdigest()

    @property
    def judged_prompt(self) -> list[Message]:
        """What a reward model reads before an answer: the guidelines, and the conversation."""
        return with_guidelines(list(self.prompt), self.guidelines)


def with_guidelines(prompt: list[Message], guidelines: tuple[str, ...]) -> list[Message]:
    """The conversation, with the guidelines at the end of what its first turn says: some chat
    templates know no system turn."""
    if not guidelines:
        return prompt
    told = "\n".join([_GUIDELINES, *(f"- {text}" for text in guidelines)])
    first = prompt[0]
    return [{"role": first["role"], "content": f"{told}\n\n{first['content']}"}, *prompt[1:]]


def read_preferences(path: Path, *, limit: int = 0) -> list[Preference]:
    """The comparisons of a JSONL file, or of a bundled scenario's matched answers by its name;
    `limit` 0 keeps all, else so many, spread over the file.

    Raises UserError, with the line, for a missing field or text, two equal texts, a tie, ratings
    that say the opposite, and two lines that contradict each other.
    """
    if str(path) in SCENARIOS:
        preferences = [_of_scenario(row) for row in load_scenario(str(path))]
        return limited(preferences, limit)
    preferences: list[Preference] = []
    lines: dict[tuple[str, str, str], str] = {}
    for where, row in json_lines(path, _EXPECTED):
        one = _preference(row, where)
        key = json.dumps(one.prompt), one.chosen.strip(), one.rejected.strip()
        contradicted = lines.get((key[0], key[2], key[1]))
        if contradicted:
            raise UserError(
                f"{where}: prefers what {contradicted} rejects, for the same prompt; this is a "
                "tie: remove both lines"
            )
        lines[key] = where
        preferences.append(one)
    if not preferences:
        raise UserError(f"{path}: there are no rows in it; {_EXPECTED}, one a line")
    return limited(preferences, limit)


def _of_scenario(row: dict[str, str]) -> Preference:
    return Preference(({"role": "user", "content": row["prompt"]},), row["safe"], row["harmful"])


def _preference(row: Any, where: str) -> Preference:
    if not isinstance(row, dict):
        raise UserError(f"{where}: found {type(row).__name__}; {_EXPECTED}")
    check_telling(row, where)
    missing = [name for name in ("prompt", "chosen", "rejected") if name not in row]
    if missing:
        raise UserError(f"{where}: {missing[0]} is missing; {_EXPECTED}")
    example = example_of({name: row[name] for name in ("prompt", "chosen", "rejected")}, where)
    if example.safe.strip() == example.harmful.strip():
        raise UserError(f"{where}: chosen and rejected are the same text; remove the line")
    for better, worse in RATED:
        if better in row and worse in row:
            _check_rating(row[better], row[worse], f"{where}: {better} {row[better]!r}")
    return Preference(example.prompt, example.safe, example.harmful)


def _check_rating(better: Any, worse: Any, where: str) -> None:
    if not all(isinstance(rating, int | float) for rating in (better, worse)):
        raise UserError(f"{where} beside {worse!r}: ratings must be numbers; correct them")
    if better == worse:
        raise UserError(f"{where} beside {worse!r}: a tie prefers nothing; remove the line")
    if better < worse:
        raise UserError(f"{where} beside {worse!r}: the chosen answer is the worse one; swap them")


def split(preferences: list[Preference], held_out_share: float) -> tuple[list, list]:
    """(to train on, held out): so many of the prompts, drawn by a hash of each, so that no prompt
    is on both sides. Of two prompts or more there is one on each side at least."""
    digests = {one.prompt_digest for one in preferences}
    wanted = max(round(held_out_share * len(digests)), 1)
    chosen = set(sorted(digests)[: min(wanted, len(digests) - 1)])
    held_out = [one for one in preferences if one.prompt_digest in chosen]
    return [one for one in preferences if one.prompt_digest not in chosen], held_out


def preferences_digest(preferences: list[Preference]) -> str:
    """16 hex digits that say which comparisons these are, in which order."""
    return digest([one.row() for one in preferences], ensure_ascii=False)


@dataclass(frozen=True)
class TokenPair:
    """A comparison as tokens: what stands before the answers, and both, as a reward model reads
    them."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def token_pair(one: Preference, chat: Chat, max_prompt: int, max_response: int) -> TokenPair:
    """Render and cut: prompts keep their end, answers their start."""
    chosen, rejected = (
        read_to_the_end(chat.response_tokens(text, ended=False), chat, max_response)
        for text in (one.chosen, one.rejected)
    )
    return TokenPair(chat.prompt_tokens(one.judged_prompt)[-max_prompt:], chosen, rejected)


def read_to_the_end(tokens: list[int], chat: Chat, max_response: int) -> list[int]:
    """An answer with an end token, also where it was cut: the score is read off that token, which
    is like no other, and whether an answer ended is for `Shaping` to reward."""
    kept = [token for token in tokens if token not in chat.end_tokens]
    return [*kept[: max_response - 1], chat.end_token]
