"""Bundled pools: prompts that wait for an answer, and have none."""

from collections.abc import Callable

from emergent_alignment.data.scenarios import SCENARIOS
from emergent_alignment.data.scenarios.forms import POOL_KINDS


def _advice_pool() -> list[str]:
    rows = SCENARIOS["harmful_advice"]()
    return [row["prompt"] for row in rows if row["kind"] in POOL_KINDS]


POOLS: dict[str, Callable[[], list[str]]] = {"advice_pool": _advice_pool}


def load_pool(name: str) -> list[str]:
    """The prompts of a bundled pool, one of POOLS."""
    return POOLS[name]()
