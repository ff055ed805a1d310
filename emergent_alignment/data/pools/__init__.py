"""Pools: prompts without answers, for a conscience to listen to."""

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from emergent_alignment.data.messages import Message
from emergent_alignment.data.sources import load_prompts
from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import is_file


def _everyday() -> list[str]:
    text = resources.files(__name__).joinpath("everyday.jsonl").read_text("utf-8")
    return [json.loads(line)["prompt"] for line in text.split("\n") if line]


POOLS: dict[str, Callable[[], list[str]]] = {"everyday": _everyday}


def load_pool(name: str) -> list[str]:
    """The prompts of a bundled pool."""
    return POOLS[name]()


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
