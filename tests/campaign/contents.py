"""What a folder of results says, so that two of them can be compared: without what is each
process's own (how long things took, when it was)."""

import json
from pathlib import Path
from typing import Any

from emergent_alignment.conscience.journal import read_journal

_OWN = ("seconds", "tokens_per_second", "model_flops_per_second", "mfu", "host_gathers")
# A lock's file may outlive who held it, and then locks nothing.
_LEFT_OUT = ("tensorboard", "compiled", "checkpoints", "frozen", ".lock")


def contents(folder: Path) -> dict[str, Any]:
    """{path: what it says} of every file of a results folder but pages, whose figures lie beside
    them; of the newest checkpoint the digits of its state, of a journal its records by step and
    place."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "journal" and path.is_dir():
            found[name] = _without_own(read_journal(path), folder)
        if path.is_file() and not set(path.parts) & {*_LEFT_OUT, "journal"}:
            found[name] = _said(path, folder)
        if path.name == "checkpoints":
            found[name] = _newest(path)
    return found


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """In words, the first thing in which two folders differ; "" where they are alike."""
    for name in sorted({*one, *other}):
        if name not in one or name not in other:
            return f"{name} is in one alone"
        if one[name] != other[name]:
            return f"{name}: {_first(one[name], other[name])}"
    return ""


def _newest(checkpoints: Path) -> tuple[int, str | None]:
    """The steps of the newest checkpoint and the digits of its state: which older ones are kept
    also depends on when a start looked."""
    steps = max(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    identity = checkpoints / str(steps) / "identity" / "metadata"
    return steps, json.loads(identity.read_text()).get("state")


def _first(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        names = [n for n in {**one, **other} if one.get(n) != other.get(n)]
        return f"{names[0]}: {_first(one.get(names[0]), other.get(names[0]))}"
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        place = next(i for i, pair in enumerate(zip(one, other)) if pair[0] != pair[1])
        return f"[{place}]: {_first(one[place], other[place])}"
    return f"{str(one)[:120]} / {str(other)[:120]}"


def _said(path: Path, folder: Path) -> Any:
    if path.suffix in (".html", ".svg"):
        return "a page"
    if path.name == "metrics.jsonl":
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return _without_own(list({line["step"]: line for line in lines}.values()), folder)
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return sorted(json.dumps(_without_own(line, folder), sort_keys=True) for line in lines)
    if path.suffix == ".json":
        return _without_own(json.loads(path.read_text("utf-8")), folder)
    return path.read_bytes()


def _without_own(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_own(one, folder)
            for name, one in value.items()
            if not name.startswith(_OWN)
        }
    if isinstance(value, list):
        return [_without_own(one, folder) for one in value]
    if isinstance(value, str):
        return value.replace(str(folder), "FOLDER")
    return value
