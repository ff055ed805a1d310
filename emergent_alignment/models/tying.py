"""Whether the embedding is also the head: what config.json says, held against what the files have.

As transformers 5 does it: two tensors that differ are two, and one alone is both.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from emergent_alignment.models.checkpoint import Index, TensorSource
from emergent_alignment.models.config import ModelConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_BLOCK_ROWS = 8192


def settle_tying(config: ModelConfig, source: TensorSource) -> tuple[ModelConfig, TensorSource]:
    """The config and the tensors to read, where the config ties the embedding to the head.

    Both there, and not the same: they are not tied, which is said in one line on stderr. The head
    alone: it is the embedding, too.
    """
    held = source.names()
    if not config.tie_embeddings or HEAD not in held:
        return config, source
    if EMBEDDING not in held:
        return config, HeadAsEmbedding(source)
    if _same(source):
        return config, source
    print(
        f"{source.where(HEAD)}: the config ties {HEAD} to {EMBEDDING}, but the file has both, and"
        " they differ: they are not tied. Set tie_word_embeddings to false in config.json.",
        file=sys.stderr,
        flush=True,
    )
    return replace(config, tie_embeddings=False), source


@dataclass(frozen=True)
class HeadAsEmbedding:
    """A `TensorSource` whose embedding is stored as its head."""

    source: TensorSource

    def names(self) -> Collection[str]:
        """Every tensor there is."""
        return {EMBEDDING if name == HEAD else name for name in self.source.names()}

    def where(self, name: str) -> str:
        """The file that holds this tensor, or would."""
        return self.source.where(_stored(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self.source.shape(_stored(name))

    def read(self, name: str, part: Index) -> np.ndarray:
        """A part of one tensor."""
        return self.source.read(_stored(name), part)


def _stored(name: str) -> str:
    return HEAD if name == EMBEDDING else name


def _same(source: TensorSource) -> bool:
    shape = source.shape(EMBEDDING)
    if shape != source.shape(HEAD):
        return False
    rows = shape[0] if shape else 0
    for start in range(0, rows, _BLOCK_ROWS):
        part = (slice(start, min(start + _BLOCK_ROWS, rows)),)
        left, right = (np.asarray(source.read(n, part), np.float32) for n in (EMBEDDING, HEAD))
        if not np.array_equal(left, right, equal_nan=True):
            return False
    return True
