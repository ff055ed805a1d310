"""The text of a checkpoint that has images as well: its tensors under the names that they have in a
checkpoint of the text alone."""

from __future__ import annotations

import sys
from collections.abc import Collection

import numpy as np

from emergent_alignment.models.checkpoint import Index, TensorSource

# What transformers wrote before version 5, and from it on; the head stands outside in the latter.
_PREFIXES = {"language_model.": "", "model.language_model.": "model."}


def text_tensors(source: TensorSource) -> TensorSource:
    """The tensors of the text model; of a checkpoint that has no others, the source itself. What is
    left out is said in one line on stderr."""
    stored = {}
    for name in source.names():
        for prefix, instead in _PREFIXES.items():
            if name.startswith(prefix):
                stored[instead + name.removeprefix(prefix)] = name
    if not stored:
        return source
    stored |= {name: name for name in source.names() if name.startswith("lm_head.")}
    left_out = sorted(set(source.names()) - set(stored.values()))
    if left_out:
        print(
            f"{source.where(left_out[0])}: {len(left_out)} tensors of images, such as"
            f" {left_out[0]}, are left out: the text alone is read, and exports hold no others.",
            file=sys.stderr,
            flush=True,
        )
    return TextTensors(source, stored)


class TextTensors:
    """A `TensorSource` under other names."""

    def __init__(self, source: TensorSource, stored: dict[str, str]):
        self._source = source
        self._stored = stored

    def names(self) -> Collection[str]:
        """Every tensor there is."""
        return self._stored.keys()

    def where(self, name: str) -> str:
        """The file that holds this tensor, or would."""
        return self._source.where(self._stored.get(name, name))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._source.shape(self._stored[name])

    def read(self, name: str, part: Index) -> np.ndarray:
        """A part of one tensor."""
        return self._source.read(self._stored[name], part)
