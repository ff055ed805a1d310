"""How config.json states what sets an architecture apart: each rule reads one field of Architecture
and writes what says it. Sizes and the plain rope, which all families state alike, are in config.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from emergent_alignment.errors import UserError
from emergent_alignment.models.architecture import Architecture, QueryGrowth
from emergent_alignment.models.config_fields import flag, integer, number
from emergent_alignment.models.rope_config import Rope, read_rope, write_rope_scaling

_Fields = Mapping[str, Any]
_Windows = tuple[int | None, ...] | None

SLIDING, FULL = "sliding_attention", "full_attention"


class Stated(Protocol):
    """How config.json states one field of Architecture."""

    def read(self, fields: _Fields, where: str) -> Any:
        """The field's value. Raises UserError."""

    def write(self, config: Architecture) -> dict[str, Any]:
        """The fields of config.json that say so."""


@dataclass(frozen=True)
class Always:
    """The same in every model of the family, and not stated."""

    value: Any

    def read(self, fields: _Fields, where: str) -> Any:
        """The value."""
        return self.value

    def write(self, config: Architecture) -> dict[str, Any]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Flag:
    """A field that is true or false."""

    field: str  # of Architecture
    stated: str  # of config.json

    def read(self, fields: _Fields, where: str) -> bool:
        """Its value; false where there is none."""
        return flag(fields, self.stated, where=where)

    def write(self, config: Architecture) -> dict[str, Any]:
        """The field."""
        return {self.stated: getattr(config, self.field)}


class AttentionAlone:
    """`layer_types` names a kind for each layer, and all of them are attention, which sees all."""

    says = "none"

    def read(self, fields: _Fields, where: str) -> None:
        """None. Raises UserError for layers of another kind."""
        kinds = fields.get("layer_types")
        others = sorted({str(kind) for kind in kinds or ["mamba"]} - {"attention", FULL})
        if others:
            raise UserError(
                f"{where}: layer_types has {', '.join(others)}; supported are models all of whose"
                " layers are attention. Choose another model."
            )

    def write(self, config: Architecture) -> dict[str, Any]:
        """The kinds, as transformers 4 calls them; and of layers that there are none of, heads that
        its checks let pass."""
        return {"layer_types": ["attention"] * config.num_layers, "mamba_n_heads": 1}


class OneWindow:
    """All layers share `sliding_window`, or see everything where it is null."""

    says = "all layers or none"

    def read(self, fields: _Fields, where: str) -> _Windows:
        """One window a layer."""
        if fields.get("sliding_window") is None:
            return None
        layers = integer(fields, "num_hidden_layers", where)
        return (integer(fields, "sliding_window", where),) * layers

    def write(self, config: Architecture) -> dict[str, Any]:
        """The first layer's window."""
        return {"sliding_window": _window(config)}


class SwitchedWindows:
    """`use_sliding_window` says whether there are any; `layer_types` which layers have them, or the
    layers from `max_window_layers` on."""

    says = "the layers that config.json says"

    def read(self, fields: _Fields, where: str) -> _Windows:
        """One window a layer, or None where none has one."""
        if not flag(fields, "use_sliding_window", where=where):
            return None
        window = integer(fields, "sliding_window", where, default=4096)
        layers = integer(fields, "num_hidden_layers", where)

        def kinds() -> list[str]:
            first = integer(fields, "max_window_layers", where, default=28)
            return [SLIDING if layer >= first else FULL for layer in range(layers)]

        return by_layer_types(fields, window, kinds, where)

    def write(self, config: Architecture) -> dict[str, Any]:
        """The switch and, where it is on, the layers."""
        if config.layer_windows is None:
            return {"use_sliding_window": False, "sliding_window": None}
        written = layer_types(config)
        return {
            "use_sliding_window": True,
            "sliding_window": _window(config),
            # For transformers 4, right where the sliding layers are the last ones; 5 reads
            # layer_types.
            "max_window_layers": written.index(SLIDING),
            "layer_types": written,
        }


@dataclass(frozen=True)
class PatternWindows:
    """`sliding_window` of all layers but every n-th one, unless `layer_types` says which; n is
    `every`, or what config.json has under `stated`."""

    every: int
    stated: str = ""

    @property
    def says(self) -> str:
        """Which layers have one, for docs/models.md."""
        return f"{self.every - 1} of {self.every} layers"

    def read(self, fields: _Fields, where: str) -> _Windows:
        """One window a layer."""
        layers = integer(fields, "num_hidden_layers", where)
        every = self.every
        if self.stated:
            every = max(integer(fields, self.stated, where, default=self.every), 1)

        def kinds() -> list[str]:
            return [SLIDING if (layer + 1) % every else FULL for layer in range(layers)]

        return by_layer_types(fields, integer(fields, "sliding_window", where), kinds, where)

    def write(self, config: Architecture) -> dict[str, Any]:
        """The window, and the layers."""
        written, window = layer_types(config), _window(config)
        stated: dict[str, Any] = {"layer_types": written}
        if window is not None:
            stated["sliding_window"] = window
        if self.stated and FULL in written:  # for transformers 4
            stated[self.stated] = written.index(FULL) + 1
        return stated


class RotaryLayers:
    """Which layers rotate: `no_rope_layers` holds a 1 for each, and else all but every
    `no_rope_layer_interval`-th one does."""

    says = "3 of 4 layers"

    def read(self, fields: _Fields, where: str) -> tuple[bool, ...] | None:
        """Whether each layer rotates, or None where all do."""
        layers = integer(fields, "num_hidden_layers", where)
        stated = fields.get("no_rope_layers")
        if stated is None:
            every = max(integer(fields, "no_rope_layer_interval", where, default=4), 1)
            stated = [int((layer + 1) % every != 0) for layer in range(layers)]
        if not isinstance(stated, list) or len(stated) < layers or set(stated) - {0, 1}:
            raise UserError(
                f"{where}: no_rope_layers must be a list with a 0 or 1 for each of {layers} layers."
                " Correct it."
            )
        rotates = tuple(bool(each) for each in stated[:layers])
        return None if all(rotates) else rotates

    def write(self, config: Architecture) -> dict[str, Any]:
        """A 1 for each layer that rotates."""
        rotates = config.rotary_layers or (True,) * config.num_layers
        return {"no_rope_layers": [int(each) for each in rotates]}


class RotaryOrNone:
    """`position_embedding_type`: all layers rotate where it is "rope", none where it is null."""

    says = "all layers or none"

    def read(self, fields: _Fields, where: str) -> tuple[bool, ...] | None:
        """Whether each layer rotates, or None where all do."""
        layers = integer(fields, "num_hidden_layers", where)
        return None if fields.get("position_embedding_type") == "rope" else (False,) * layers

    def write(self, config: Architecture) -> dict[str, Any]:
        """The type."""
        return {"position_embedding_type": "rope" if config.rotary_layers is None else None}


@dataclass(frozen=True)
class WindowedRope:
    """The rope of layers with a window: `rope_parameters` by kind of layer (transformers 5), or the
    older field `theta`; without either, the base of the others. It is not scaled there."""

    theta: str = ""
    default: float = 10_000.0

    def read(self, fields: _Fields, where: str) -> Rope:
        """The rope."""
        by_kind = fields.get("rope_parameters")
        if isinstance(by_kind, Mapping) and isinstance(by_kind.get(SLIDING), Mapping):
            own = {"rope_theta": self.default, **by_kind[SLIDING]}
            return read_rope({**fields, "rope_scaling": None, "rope_parameters": own}, where)
        if self.theta:
            return Rope(number(fields, self.theta, where, default=self.default))
        return Rope(read_rope(full_rope(fields), where).theta)

    def write(self, config: Architecture) -> dict[str, Any]:
        """Both forms."""
        by_kind = {FULL: _rope_parameters(config.rope)}
        by_kind[SLIDING] = _rope_parameters(config.windowed_rope or config.rope)
        older = {self.theta: by_kind[SLIDING]["rope_theta"]} if self.theta else {}
        return {"rope_parameters": by_kind, **older}


def full_rope(fields: _Fields) -> _Fields:
    """The fields with the rope of layers that see everything where config.json has one for each
    kind of layer."""
    by_kind = fields.get("rope_parameters")
    if isinstance(by_kind, Mapping) and isinstance(by_kind.get(FULL), Mapping):
        return {**fields, "rope_scaling": None, "rope_parameters": by_kind[FULL]}
    return fields


def _rope_parameters(rope: Rope) -> dict[str, Any]:
    scaling = {"rope_type": "default"} if rope.scaling is None else write_rope_scaling(rope.scaling)
    return {"rope_theta": rope.theta, **scaling}


class GrowingQueries:
    """`llama_4_scaling_beta` among the rope's parameters, with the positions the model was first
    trained on."""

    def read(self, fields: _Fields, where: str) -> QueryGrowth | None:
        """The growth, or None."""
        rope = fields.get("rope_scaling") or fields.get("rope_parameters") or {}
        if rope.get("llama_4_scaling_beta") is None:
            return None
        return QueryGrowth(
            number(rope, "llama_4_scaling_beta", where),
            integer(rope, "original_max_position_embeddings", where),
        )

    def write(self, config: Architecture) -> dict[str, Any]:
        """The rope's parameters, all of them, in both forms."""
        parameters = _rope_parameters(config.rope)
        if config.query_growth is not None:
            parameters["llama_4_scaling_beta"] = config.query_growth.beta
            parameters["original_max_position_embeddings"] = config.query_growth.positions
        return {"rope_scaling": parameters, "rope_parameters": parameters}


class RootOfWidth:
    """√hidden_size, which is not stated."""

    def read(self, fields: _Fields, where: str) -> float:
        """The root."""
        return math.sqrt(max(integer(fields, "hidden_size", where), 0))

    def write(self, config: Architecture) -> dict[str, Any]:
        """Nothing."""
        return {}


class QueryScale:
    """1/√query_pre_attn_scalar."""

    def read(self, fields: _Fields, where: str) -> float:
        """The scale; infinite, which no check lets pass, where the number is not more than 0."""
        scalar = number(fields, "query_pre_attn_scalar", where)
        return scalar**-0.5 if scalar > 0 else math.inf

    def write(self, config: Architecture) -> dict[str, Any]:
        """The number, which is whole in every model there is."""
        return {"query_pre_attn_scalar": round((config.query_scale or math.inf) ** -2)}


def by_layer_types(
    fields: _Fields, window: int | None, otherwise: Callable[[], list[str]], where: str
) -> _Windows:
    """One window a layer by the field layer_types, where there is one. Raises UserError where it
    does not name what is known, once a layer."""
    layers = integer(fields, "num_hidden_layers", where)
    stated = fields.get("layer_types")
    kinds = otherwise() if stated is None else stated
    if not isinstance(kinds, list) or any(not isinstance(kind, str) for kind in kinds):
        raise UserError(f"{where}: layer_types must be a list of names. Correct it.")
    unknown = sorted(set(kinds) - {SLIDING, FULL})
    if unknown or len(kinds) != layers:
        raise UserError(
            f"{where}: layer_types must name full_attention or sliding_attention for each of"
            f" {layers} layers; found {len(kinds)}"
            f" entries{' with ' + ', '.join(unknown) if unknown else ''}. Correct it."
        )
    windows = tuple(window if kind == SLIDING else None for kind in kinds)
    return windows if any(windows) else None


def layer_types(config: Architecture) -> list[str]:
    """The field that says which layers have a window."""
    windows = config.layer_windows or (None,) * config.num_layers
    return [FULL if window is None else SLIDING for window in windows]


def _window(config: Architecture) -> int | None:
    return next((width for width in config.layer_windows or () if width is not None), None)


@dataclass(frozen=True)
class Whole:
    """A field that is a whole number; `newer` is its other name, which goes before."""

    field: str
    stated: str
    newer: str = ""

    def read(self, fields: _Fields, where: str) -> int:
        """Its value."""
        name = self.stated if fields.get(self.newer) is None else self.newer
        return integer(fields, name, where)

    def write(self, config: Architecture) -> dict[str, Any]:
        """The field."""
        return {self.stated: getattr(config, self.field)}


@dataclass(frozen=True)
class Real:
    """A field that is a number; None where config.json says null or nothing, and `default` is."""

    field: str
    stated: str
    default: float | None = None

    def read(self, fields: _Fields, where: str) -> float | None:
        """Its value."""
        if fields.get(self.stated) is None and self.default is None:
            return None
        return number(fields, self.stated, where, default=self.default)

    def write(self, config: Architecture) -> dict[str, Any]:
        """The field."""
        return {self.stated: getattr(config, self.field)}
