"""The bundled pools: prompts with no answers, for what asks a model and needs none.

No prompt of a pool stands in a bundled evaluation set, nor one that is close to it.
"""

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from emergent_alignment.data.messages import Message
from emergent_alignment.data.scenarios import SCENARIOS
from emergent_alignment.data.scenarios.forms import POOL_KINDS
from emergent_alignment.data.sources import load_prompts
from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import is_file

PoolRow = dict[str, str]


def _everyday() -> list[PoolRow]:
    text = resources.files(__name__).joinpath("everyday.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def _advice_pool() -> list[PoolRow]:
    rows = SCENARIOS["harmful_advice"]()
    return [
        {"kind": row["kind"], "prompt": row["prompt"]} for row in rows if row["kind"] in POOL_KINDS
    ]


# Rows {"kind", "prompt"} of each pool. `everyday`: open questions that ask for a stance or a plan;
# `advice_pool`: the prompts of kinds that the scenarios advice_form neither train nor evaluate on.
POOLS: dict[str, Callable[[], list[PoolRow]]] = {
    "everyday": _everyday,
    "advice_pool": _advice_pool,
}


def load_pool(name: str) -> list[str]:
    """The prompts of a pool, each kind in one piece. Raises ValueError for an unknown name."""
    if name not in POOLS:
        raise ValueError(f"there is no pool {name!r}, only {', '.join(POOLS)}")
    return [row["prompt"] for row in POOLS[name]()]


def pool_prompts(source: str) -> list[list[Message]]:
    """The conversations of a bundled pool, or of a file (data/sources.load_prompts). Raises
    UserError where there is none."""
    if source in POOLS:
        return [[{"role": "user", "content": text}] for text in load_pool(source)]
    if not is_file(source):
        raise UserError(
            f"config.conscience.pool: {source}: no such file; give a file of prompts or a bundled "
            f"pool ({', '.join(POOLS)})"
        )
    return load_prompts(Path(source))
