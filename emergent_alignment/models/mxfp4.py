"""MXFP4 tensors of safetensors, under the name and in the layout of what they stand for.

Of a tensor t [experts, in, out] there are t_blocks uint8[experts, out, in/32, 16], two numbers of
four bits a byte, the lower bits first, and t_scales uint8[experts, out, in/32], exponents of two
plus 127 (Rouhani et al. 2023, 2310.10537, table 1; the layout is that of gpt-oss, 2508.10925,
section 2.1).
"""

from __future__ import annotations

from collections.abc import Collection

import ml_dtypes
import numpy as np

from emergent_alignment.errors import UserError
from emergent_alignment.models.checkpoint import Index, TensorSource

BLOCK = 32  # numbers with a scale in common
_BLOCKS, _SCALES = "_blocks", "_scales"
_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_NUMBERS = np.array([sign * number for sign in (1, -1) for number in _POSITIVE], np.float32)
# The two numbers of each byte, as one of 64 bits: looked up so, they take a seventh of the time.
_PAIRS = np.stack([np.tile(_NUMBERS, 16), np.repeat(_NUMBERS, 16)], axis=-1).view(np.int64)[:, 0]


def mxfp4_tensors(source: TensorSource) -> TensorSource:
    """The tensors with those of MXFP4 undone; of a checkpoint without any, the source itself."""
    held = set(source.names())
    stems = {name.removesuffix(_BLOCKS) for name in held if name.endswith(_BLOCKS)}
    packed = {stem for stem in stems if stem + _SCALES in held}
    return Mxfp4Tensors(source, packed) if packed else source


def dequantised_blocks(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """float32[rows, numbers] of uint8 blocks [rows, n, 16] and scales [rows, n]: each number times
    two to its block's exponent."""
    numbers = np.take(_PAIRS, blocks).view(np.float32)
    numbers *= np.ldexp(np.float32(1), scales.astype(np.int32) - 127)[..., None]
    return numbers.reshape(len(blocks), -1)


class Mxfp4Tensors:
    """A `TensorSource` in which a pair of blocks and scales is one tensor, in bfloat16, which holds
    every such number exactly; no more than one expert is undone at a time."""

    def __init__(self, source: TensorSource, packed: set[str]):
        self._source = source
        self._packed = packed

    def names(self) -> Collection[str]:
        """Every tensor there is."""
        parts = {stem + end for stem in self._packed for end in (_BLOCKS, _SCALES)}
        return {*self._source.names()} - parts | self._packed

    def where(self, name: str) -> str:
        """The file that holds this tensor, or would."""
        return self._source.where(name + _BLOCKS if name in self._packed else name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises UserError where blocks do not belong to their scales."""
        if name not in self._packed:
            return self._source.shape(name)
        blocks, scales = (tuple(self._source.shape(name + end)) for end in (_BLOCKS, _SCALES))
        if len(blocks) != 4 or blocks != (*scales, BLOCK // 2):
            raise UserError(
                f"{self.where(name)}: tensor {name}{_BLOCKS} has shape {list(blocks)}, and its"
                f" scales {list(scales)}; MXFP4 has 16 bytes a scale. Download the model again."
            )
        experts, outputs, groups, _ = blocks
        return experts, groups * BLOCK, outputs

    def read(self, name: str, part: Index) -> np.ndarray:
        """A part of one tensor."""
        if name not in self._packed:
            return self._source.read(name, part)
        sizes = self.shape(name)
        experts, inputs, outputs = (cut.indices(size)[:2] for cut, size in zip(part, sizes))
        first, last = inputs[0] // BLOCK, -(-inputs[1] // BLOCK)
        within = slice(inputs[0] - first * BLOCK, inputs[1] - first * BLOCK)
        shape = [stop - start for start, stop in (experts, inputs, outputs)]
        whole = np.empty(shape, ml_dtypes.bfloat16)
        for place, expert in enumerate(range(*experts)):
            own = slice(expert, expert + 1), slice(*outputs), slice(first, last)
            blocks = self._bytes(name + _BLOCKS, (*own, slice(0, BLOCK // 2)))
            scales = self._bytes(name + _SCALES, own)
            undone = dequantised_blocks(blocks[0], scales[0])[:, within]
            whole[place] = undone.astype(whole.dtype).T
        return whole

    def _bytes(self, name: str, part: Index) -> np.ndarray:
        held = self._source.read(name, part)
        if held.dtype != np.uint8:
            raise UserError(
                f"{self._source.where(name)}: tensor {name} holds {held.dtype} numbers; those of"
                " MXFP4 are uint8. Download the model again."
            )
        return held
