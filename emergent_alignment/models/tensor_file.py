"""Write one safetensors file, a tensor at a time, so that no more than one tensor is in memory.

The safetensors library writes the same format, but wants every tensor of a file at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_DTYPE_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class Tensor:
    """A tensor that is made only when it is written."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensor_file(path: Path, tensors: Sequence[Tensor]) -> None:
    """Write `path` in the safetensors format: header length, JSON header, tensors in order.

    The metadata says format "pt", without which transformers refuses the file.

    Raises:
        OSError: when the file cannot be written; what is there of it is then useless.
        ValueError: when a tensor turns out to have another shape or dtype than it announced.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size_bytes],
        }
        offset += tensor.size_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # readers map the file into memory: tensors start aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            made = tensor.make()
            if made.shape != tensor.shape or made.dtype != tensor.dtype:
                raise ValueError(
                    f"{tensor.name}: announced {tensor.shape} {tensor.dtype}, made {made.shape}"
                    f" {made.dtype}"
                )
            little_endian = made.astype(made.dtype.newbyteorder("<"), copy=False)
            file.write(np.ascontiguousarray(little_endian).reshape(-1).view(np.uint8).data)
