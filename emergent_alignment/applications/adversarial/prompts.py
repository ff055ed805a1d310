"""Prompts for adversarial training: hostile ones of several kinds of attack, and benign ones that
look like them. Neither has a known answer.

The bundled ones (attacks.jsonl) ask for mild, obvious wrongs, and for nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from emergent_alignment.data.examples import check_telling
from emergent_alignment.data.messages import Message
from emergent_alignment.data.row_files import json_lines
from emergent_alignment.errors import UserError

Side = Literal["hostile", "benign"]
BUNDLED_ATTACKS = "attacks"
_EXPECTED = 'expected {"kind": …, "side": "hostile" or "benign", "prompt": …}'


@dataclass(frozen=True)
class AttackPrompt:
    """One user turn: its kind of attack, whether it is meant badly or only looks it, its text."""

    kind: str
    side: Side
    text: str

    @property
    def messages(self) -> list[Message]:
        return [{"role": "user", "content": self.text}]


def load_attacks(
    source: str, side: Side, held_out: Sequence[str], *, split: Literal["train", "heldout"]
) -> list[AttackPrompt]:
    """The prompts of one side: of the kinds that are `held_out`, or (`train`) of all others.
    `source` is "attacks" or a .jsonl file of the same fields.

    Raises UserError for a missing or malformed source, a kind that is not in it, or no prompt.
    """
    rows = _all_prompts(source)
    kinds = sorted({row.kind for row in rows})
    unknown = [kind for kind in held_out if kind not in kinds]
    if unknown:
        raise UserError(
            f"config.adversarial.held_out: {source} has no prompts of the kind {unknown[0]!r}; it "
            f"has {', '.join(kinds)}"
        )
    prompts = [
        row for row in rows if row.side == side and (row.kind in held_out) == (split == "heldout")
    ]
    if not prompts:
        where = "of the kinds held out" if split == "heldout" else "but for the kinds held out"
        raise UserError(f"{source}: no {side} prompts {where} (config.adversarial.held_out)")
    return prompts


def _all_prompts(source: str) -> list[AttackPrompt]:
    if source == BUNDLED_ATTACKS:
        path = resources.files(__package__) / "attacks.jsonl"
        with resources.as_file(path) as file:
            return _prompts(file)
    return _prompts(Path(source))


def _prompts(path: Path) -> list[AttackPrompt]:
    return [_prompt(row, where) for where, row in json_lines(path, _EXPECTED)]


def _prompt(row: Any, where: str) -> AttackPrompt:
    if not isinstance(row, dict):
        raise UserError(f"{where}: found {type(row).__name__}; {_EXPECTED}")
    check_telling(row, where)
    kind, side, text = (row.get(name) for name in ("kind", "side", "prompt"))
    texts = all(isinstance(value, str) and value.strip() for value in (kind, text))
    if not texts or side not in ("hostile", "benign"):
        raise UserError(f"{where}: found {sorted(map(str, row))}, side {side!r}; {_EXPECTED}")
    return AttackPrompt(kind, side, text)
