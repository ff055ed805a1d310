"""Where the results of a two-by-two lie, and how they are read back. No model, no JAX."""

from collections.abc import Iterator
from pathlib import Path

from emergent_alignment.errors import UserError
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.shapes import FLAG, Mapped, Number, Optional, OrNull, Text

TWO_BY_TWO, RESULT = "two-by-two", "result.json"
BASE_ARM, PLAIN_ARM = "base", "plain"  # the arms whose shares are 0 and 1
# What an arm whose training had a system text is measured under, too: that text, and other words
# for it. Each is a folder within that of the step.
TOLD = ("trained", "rephrased")
_INTERVAL = {"value": Number(), "low": Number(), "high": Number()}
_MARGIN = _INTERVAL | {"kinds": Mapped(Number())}
_SHAPE = {
    "arm": Text(),
    "step": Number(0, whole=True),
    "told": Optional(Text(TOLD)),
    "system": Optional(Text()),
    "world": Text(),
    "judges": Mapped({"valid": FLAG, "auc": _INTERVAL}),
    "margins": Mapped(_MARGIN),
    "in_form": _INTERVAL,
    "judged": Mapped({"harmful": _INTERVAL, "kinds": Mapped(Number())}),
    "frozen_score": _INTERVAL,
    "kl": _INTERVAL,
    "answers": [
        {"prompt": Number(0, whole=True), "in_form": FLAG, "harmful": Mapped(OrNull(FLAG))}
    ],
}


def step_folder(arm: Path, step: int, told: str = "") -> Path:
    """Where an arm's figures after so many steps are kept, perhaps those under a system text."""
    return arm / TWO_BY_TWO / f"step-{step}" / told


def kept_result(folder: Path) -> dict | None:
    """The result in a step's folder; None where there is none. Raises UserError for a broken
    one."""
    try:
        return read_json_file(folder / RESULT, _SHAPE, "evaluate it again with --overwrite")
    except FileNotFoundError:
        return None


def read_told(arm: Path, step: int) -> dict[str, dict]:
    """The results of an arm after so many steps under each system text, as far as there are any."""
    results = {told: kept_result(step_folder(arm, step, told)) for told in TOLD}
    return {told: result for told, result in results.items() if result is not None}


def read_steps(arm: Path) -> dict[int, dict]:
    """The results of an arm's folder by steps, in their order."""
    by_step = {}
    for path in (arm / TWO_BY_TWO).glob(f"step-*/{RESULT}"):
        result = kept_result(path.parent)
        by_step[result["step"]] = result
    return dict(sorted(by_step.items()))


def seed_folders(root: Path) -> list[Path]:
    """The folders of an experiment's seeds, in their order."""
    named = [path for path in root.glob("seed-*") if path.name.removeprefix("seed-").isdigit()]
    return sorted(named, key=lambda path: int(path.name.removeprefix("seed-")))


def arm_folders(seed: Path) -> Iterator[Path]:
    """The folders of a seed's arms: base first, then plain, then by name. Raises UserError where
    one of these two, from which shares are taken, is missing."""
    arms = sorted(path.name for path in seed.iterdir() if _is_arm(path))
    for name, what in ((BASE_ARM, "nothing learned"), (PLAIN_ARM, "everything learned")):
        if name not in arms:
            raise UserError(
                f"{seed}: the arm {name!r} is missing, which stands for {what}: every share is "
                "taken from base and plain; add it to config.experiment.arms"
            )
    for name in sorted(arms, key=lambda arm: ((BASE_ARM, PLAIN_ARM) + (arm,)).index(arm)):
        yield seed / name


def _is_arm(folder: Path) -> bool:
    return (folder / "run.json").is_file() or (
        folder.is_dir() and (folder.name == BASE_ARM or (folder / TWO_BY_TWO).is_dir())
    )
