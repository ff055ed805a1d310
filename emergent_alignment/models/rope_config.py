"""How config.json says what stretches rotary frequencies beyond the length a model was trained for.

What is computed from it is in `rope.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.models.config_fields import flag, integer, number, told

ROPE_KINDS = ("linear", "dynamic", "llama3", "yarn")
_ABOVE_ZERO = (
    *("factor", "original_max_positions", "low_freq_factor", "high_freq_factor"),
    "attention_factor",
)
_DEFAULT_AT_ZERO = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")  # as in transformers


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained length; formulas in `models/rope.py`.

    Fields that a kind does not use are None. Names on the right are Hugging Face's.
    """

    kind: str  # "linear", "dynamic", "llama3" or "yarn"; rope_type
    factor: float
    original_max_positions: int | None = None  # llama3, yarn; original_max_position_embeddings
    low_freq_factor: float | None = None  # llama3
    high_freq_factor: float | None = None  # llama3
    beta_fast: float | None = None  # yarn, 32 where None
    beta_slow: float | None = None  # yarn, 1 where None
    attention_factor: float | None = (
        None  # yarn, derived from the next two or from `factor` where None
    )
    mscale: float | None = None  # yarn
    mscale_all_dim: float | None = None  # yarn
    truncate: bool = True  # yarn: whether the ramp's ends are rounded to whole dimensions

    def check(self, where: str) -> None:
        """Raise UserError for numbers that cannot be computed with."""
        low, high = self.low_freq_factor, self.high_freq_factor
        if low is not None and high is not None and low >= high:
            raise UserError(
                f"{where}: low_freq_factor is {low}, and must be less than high_freq_factor,"
                f" {high}. Correct it."
            )
        for name in _ABOVE_ZERO + _DEFAULT_AT_ZERO:
            value = getattr(self, name)
            zero = value == 0 and name in _DEFAULT_AT_ZERO
            if value is not None and not zero and not 0 < value < math.inf:
                raise UserError(
                    f"{where}: {name} of the rope scaling is {value}; it must be more than 0."
                    " Correct it."
                )

    def longest(self, max_positions: int) -> int:
        """The longest row that it is made for, where the model states so many positions.

        linear and yarn stretch the length they start from; llama3's stated length is stretched
        already. dynamic would need other frequencies for each length of a row, and is not supported
        beyond the stated one.
        """
        if self.kind == "linear":
            return max(max_positions, int(max_positions * self.factor))
        if self.kind == "yarn":
            return max(max_positions, int(self.original_max_positions * self.factor))
        return max_positions


@dataclass(frozen=True)
class Rope:
    """Rotary positions: the base of their frequencies, and how these are stretched."""

    theta: float
    scaling: RopeScaling | None = None


def read_rope(fields: Mapping[str, Any], where: str) -> Rope:
    """The rope from either form; as in transformers, `rope_scaling` wins. Raises UserError for
    what cannot be read, or is of an unsupported kind."""
    for name in ("rope_scaling", "rope_parameters"):
        if not isinstance(fields.get(name) or {}, Mapping):
            raise UserError(f"{where}: {name} must be an object {{…}} or null. Correct it.")
    parameters = dict(fields.get("rope_scaling") or fields.get("rope_parameters") or {})
    nested = [name for name, value in parameters.items() if isinstance(value, Mapping)]
    if nested:
        raise UserError(
            f"{where}: rope settings differ by layer type ({', '.join(nested)}), which is not"
            " supported."
        )
    rope = {"rope_theta": fields.get("rope_theta"), **parameters}
    if rope["rope_theta"] is None:
        rope["rope_theta"] = (fields.get("rope_parameters") or {}).get("rope_theta")
    theta = number(rope, "rope_theta", where, default=10000.0)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return Rope(theta)
    if kind not in ROPE_KINDS:
        raise UserError(
            f"{where}: rope scaling is {told(kind)}; supported are default,"
            f" {', '.join(ROPE_KINDS)}. Choose another model."
        )
    if kind in ("linear", "dynamic"):
        return Rope(theta, RopeScaling(kind, number(rope, "factor", where)))
    return Rope(theta, _read_long_rope(kind, rope, fields, where))


def _read_long_rope(
    kind: str, rope: Mapping[str, Any], fields: Mapping[str, Any], where: str
) -> RopeScaling:
    """The scalings that start from the length the model was first trained on: llama3 and yarn."""
    max_positions = integer(fields, "max_position_embeddings", where)
    # A field beside the rope settings takes precedence in transformers.
    name = "original_max_position_embeddings"
    beside = fields if fields.get(name) is not None else rope
    original = integer(beside, name, where, default=max_positions)
    factor = number(rope, "factor", where, default=max_positions / max(original, 1))
    if kind == "llama3":
        low, high = (number(rope, f"{end}_freq_factor", where) for end in ("low", "high"))
        return RopeScaling(kind, factor, original, low_freq_factor=low, high_freq_factor=high)
    optional = ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim")
    numbers = {name: number(rope, name, where) for name in optional if rope.get(name) is not None}
    truncate = flag(rope, "truncate", where=where, default=True)
    return RopeScaling(kind, factor, original, truncate=truncate, **numbers)


def write_rope_scaling(scaling: RopeScaling) -> dict[str, Any]:
    """The value of `rope_scaling` that says it."""
    written = {
        "rope_type": scaling.kind,
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_max_positions,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
        "attention_factor": scaling.attention_factor,
        "mscale": scaling.mscale,
        "mscale_all_dim": scaling.mscale_all_dim,
        "truncate": None if scaling.truncate else False,
    }
    return {name: value for name, value in written.items() if value is not None}
