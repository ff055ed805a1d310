"""How a GGUF file's metadata states what sets an architecture apart, as llama.cpp's converter
writes it: each rule reads one field of Architecture. What all state alike is in gguf_file.py.

Keys are those of gguf/constants.py, without the architecture before them. What the converter leaves
out, llama.cpp knows by the architecture's name (its src/models), and so do the families' tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from emergent_alignment.errors import UserError
from emergent_alignment.models.architecture import QueryGrowth
from emergent_alignment.models.config_fields import told
from emergent_alignment.models.rope_config import Rope

_WINDOW = "attention.sliding_window"


@dataclass(frozen=True)
class GgufMetadata:
    """A file's metadata by full key, and the architecture that it names."""

    values: Mapping[str, Any]
    architecture: str
    where: str  # the file, for errors

    def __contains__(self, key: str) -> bool:
        return self.values.get(f"{self.architecture}.{key}") is not None

    def value(self, key: str, default: Any = None) -> Any:
        """Metadata `{architecture}.{key}`, of whatever type."""
        value = self.values.get(f"{self.architecture}.{key}")
        return default if value is None else value

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number; required if it has no default. Raises UserError."""
        value = self._one(key, int, default)
        if abs(value) >= 2**31:
            raise UserError(
                f"{self.where}: metadata {self.architecture}.{key} is {value}, which no model has."
                " Download the file again."
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; required if it has no default. Raises UserError."""
        value = self._one(key, (int, float), default)
        if not abs(value) < 1e30:
            raise UserError(
                f"{self.where}: metadata {self.architecture}.{key} is no finite number. Download"
                " the file again."
            )
        # Stored as float32: 1e-5 would come back as 9.99999975e-06. Take the shortest decimal.
        return float(str(np.float32(value)))

    def refused(self, key: str, reason: str) -> UserError:
        """What to raise for this key."""
        return UserError(
            f"{self.where}: metadata {self.architecture}.{key} {reason}. Choose another"
            " conversion of the model."
        )

    def _one(self, key: str, kinds: Any, default: Any) -> Any:
        value = self.value(key, default)
        if isinstance(value, list) and value and all(each == value[0] for each in value):
            value = value[0]  # one for each layer
        if isinstance(value, bool) or not isinstance(value, kinds):
            fault = "is missing" if value is None else f"is {str(value)[:40]}, not one number"
            raise self.refused(key, fault)
        return value


class GgufRule(Protocol):
    """How metadata states one field."""

    def read(self, metadata: GgufMetadata) -> Any:
        """The field's value. Raises UserError."""


@dataclass(frozen=True)
class GgufForm:
    """How llama.cpp writes a family.

    architecture  the name that its files give
    marked        metadata that tells it from other families of this name: theirs is 0, or missing
    pairs         whether the two halves of each query and key head are stored in turns, as the
                  converter's LlamaModel and what inherits from it do
    fields        of Architecture: how metadata states them
    yarn          of RopeScaling: likewise, where the rope is scaled so
    never         metadata that changes the computation beyond what the family has, and what it may
                  be, if it is there
    """

    architecture: str
    marked: str = ""
    pairs: bool = False
    fields: Mapping[str, GgufRule] = field(default_factory=dict)
    yarn: Mapping[str, GgufRule] = field(default_factory=dict)
    never: Mapping[str, Any] = field(default_factory=dict)

    def is_of(self, metadata: GgufMetadata) -> bool:
        """Whether the metadata has what marks this family. Raises UserError."""
        return bool(self.marked) and metadata.number(self.marked, 0.0) != 0.0

    def read(self, metadata: GgufMetadata) -> dict[str, Any]:
        """The fields of Architecture that are not stated alike by all. Raises UserError."""
        for key, allowed in self.never.items():
            if metadata.value(key, allowed) != allowed:
                raise metadata.refused(
                    key, f"is {told(metadata.value(key))}, which is not supported"
                )
        return {name: rule.read(metadata) for name, rule in self.fields.items()}


@dataclass(frozen=True)
class GgufSame:
    """The same in every model of the family, and not stated."""

    same: Any

    def read(self, metadata: GgufMetadata) -> Any:
        """The value."""
        return self.same


@dataclass(frozen=True)
class GgufWhole:
    """A whole number."""

    key: str

    def read(self, metadata: GgufMetadata) -> int:
        """The number."""
        return metadata.whole(self.key)


@dataclass(frozen=True)
class GgufReal:
    """A number; where it is missing, `default` if there is one. `optional`: or else None."""

    key: str
    default: float | None = None
    optional: bool = False

    def read(self, metadata: GgufMetadata) -> float | None:
        """The number."""
        if self.optional and self.key not in metadata:
            return None
        return metadata.number(self.key, self.default)


@dataclass(frozen=True)
class GgufWindows:
    """A window of all layers but every n-th one, unless the pattern says which layers or which n;
    none where its width is 0. `default` is the width where it is missing."""

    every: int
    default: int | None = None

    def read(self, metadata: GgufMetadata) -> tuple[int | None, ...] | None:
        """One window a layer, or None where none has one."""
        width, layers = metadata.whole(_WINDOW, self.default), metadata.whole("block_count")
        key = f"{_WINDOW}_pattern"
        pattern = metadata.value(key, self.every)
        if isinstance(pattern, int) and not isinstance(pattern, bool) and 0 < pattern < 2**31:
            pattern = [bool((layer + 1) % pattern) for layer in range(layers)]
        if not isinstance(pattern, list) or len(pattern) < layers or set(pattern) - {0, 1}:
            raise metadata.refused(key, f"is neither a period nor true or false {layers} times")
        windows = tuple(width if windowed else None for windowed in pattern[:layers])
        return windows if any(windows) else None


@dataclass(frozen=True)
class GgufWindowedRope:
    """The base of the layers with a window, which is not scaled there; where it is missing,
    `default`, or the base of the others."""

    default: float | None = None

    def read(self, metadata: GgufMetadata) -> Rope:
        """The rope."""
        others = metadata.number("rope.freq_base", 10_000.0)
        return Rope(metadata.number("rope.freq_base_swa", self.default or others))


@dataclass(frozen=True)
class GgufRotaryLayers:
    """All layers but every n-th one rotate, which llama.cpp knows by the architecture's name."""

    every: int

    def read(self, metadata: GgufMetadata) -> tuple[bool, ...] | None:
        """Whether each layer rotates, or None where all do."""
        rotates = [(layer + 1) % self.every != 0 for layer in range(metadata.whole("block_count"))]
        return None if all(rotates) else tuple(rotates)


class GgufGrowth:
    """How queries grow with their position: from the length that yarn starts from."""

    def read(self, metadata: GgufMetadata) -> QueryGrowth | None:
        """The growth, or None."""
        beta = metadata.number("attention.temperature_scale", 0.0)
        start = "rope.scaling.original_context_length"
        return QueryGrowth(beta, metadata.whole(start)) if beta else None


class GgufRootOfWidth:
    """√embedding_length."""

    def read(self, metadata: GgufMetadata) -> float:
        """The root."""
        return math.sqrt(max(metadata.whole("embedding_length"), 0))


@dataclass(frozen=True)
class GgufQueryScale:
    """1/√key_length; in the one model of `widest` layers, 1/√(embedding_length / heads), which
    llama.cpp knows by the number of layers."""

    widest: int

    def read(self, metadata: GgufMetadata) -> float:
        """The scale; infinite, which no check lets pass, where the sizes are none."""
        if metadata.whole("block_count") == self.widest:
            heads = max(metadata.whole("attention.head_count"), 1)
            scalar = metadata.whole("embedding_length") // heads
        else:
            scalar = metadata.whole("attention.key_length")
        return scalar**-0.5 if scalar > 0 else math.inf
