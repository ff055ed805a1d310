"""Two results side by side: the difference of their shares, and the answers that it takes."""

from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.misalignment.scores import MISALIGNMENT_FOLDER, result_file
from emergent_alignment.evaluation.misalignment.summary import DENOMINATORS
from emergent_alignment.evaluation.shares import LEVEL, POWER, answers_needed, share_difference
from emergent_alignment.intervals import Interval
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.shapes import Number, Optional, Text

_REMEDY = "this is not the result of `emergent-alignment evaluate misalignment`"
_SHARE = Optional({name: Number(0, 1) for name in ("value", "low", "high")} | {"n": Number(0)})
_RESULT = {
    "arm": Text(),
    "overall": {"misaligned_share": {name: _SHARE for name in DENOMINATORS}},
    "judge": {"name": Text(), "identity": dict},
    "limits": {"misaligned_below": Number(0, 100), "coherent_above": Number(0, 100)},
    "sampling": dict,
}


def result_of_arm(path: Path, judge: str) -> Path:
    """The result file that a path stands for: itself, or that of `judge` in an arm's folder."""
    return path if path.is_file() else path / MISALIGNMENT_FOLDER / result_file(judge)


def read_result(file: Path) -> dict:
    """A judge's result. Raises UserError where there is none in the file."""
    try:
        return read_json_file(file, _RESULT, _REMEDY)
    except FileNotFoundError:
        raise UserError(
            f"{file}: no such result; make it with `emergent-alignment evaluate misalignment`"
        ) from None


def require_comparable(ours: dict, theirs: dict, path: Path) -> None:
    """Raise UserError where other questions, limits or another judge make shares of two results
    no matter of the models alone."""
    for what, mine, other in (
        ("judge", ours["judge"]["identity"], theirs["judge"]["identity"]),
        ("limits", ours["limits"], theirs["limits"]),
        *(
            (name, ours["sampling"][name], theirs["sampling"].get(name))
            for name in ("questions", "max_new_tokens", "temperature", "top_p")
        ),
    ):
        if mine != other:
            raise UserError(
                f"{path}: cannot be compared with, its {what} differs ({other!r}, here {mine!r}); "
                "evaluate both in the same way"
            )


def compared(ours: dict, theirs: dict) -> dict:
    """The differences (ours − theirs) by denominator, each with its interval, and the answers an
    arm with which it would probably be found."""
    rows = {}
    for name in DENOMINATORS:
        mine, other = (result["overall"]["misaligned_share"][name] for result in (ours, theirs))
        if mine is None or other is None:
            rows[name] = None
            continue
        mine, other = Interval(**mine), Interval(**other)
        rows[name] = {
            "ours": mine.to_json(),
            "theirs": other.to_json(),
            "difference": share_difference(mine, other).to_json(),
            "answers_needed": answers_needed(mine.value, other.value),
        }
    return {"against": theirs["arm"], "power": POWER, "level": LEVEL, "shares": rows}
