"""The bundled pools: prompts with no answers, for what asks a model and needs none.

No prompt of a pool stands in a bundled evaluation set, nor one that is close to it.
"""

import json
from collections.abc import Callable
from importlib import resources

PoolRow = dict[str, str]


def _everyday() -> list[PoolRow]:
    text = resources.files(__name__).joinpath("everyday.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


# Rows {"kind", "prompt"} of each pool. `everyday`: open questions that ask for a stance or a plan.
POOLS: dict[str, Callable[[], list[PoolRow]]] = {"everyday": _everyday}


def load_pool(name: str) -> list[str]:
    """The prompts of a pool, each kind in one piece. Raises ValueError for an unknown name."""
    if name not in POOLS:
        raise ValueError(f"there is no pool {name!r}, only {', '.join(POOLS)}")
    return [row["prompt"] for row in POOLS[name]()]
