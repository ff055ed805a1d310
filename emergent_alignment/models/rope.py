"""Rotary position frequencies, plain and scaled; the rotation itself is in the decoder."""

from __future__ import annotations

import math

import numpy as np

from emergent_alignment.models.architecture import Architecture
from emergent_alignment.models.rope_config import Rope, RopeScaling


def rope_frequencies(config: Architecture, rope: Rope | None = None) -> tuple[np.ndarray, float]:
    """Radians per position for each pair of a head's dimensions, and the factor on cosine and sine.

    f_i = θ^(−2i/d), i = 0 … d/2−1   (Su et al. 2021, RoFormer, section 3.2.2)

    then stretched as the scaling of `rope` says (by default the config's own). "dynamic" changes
    its base only beyond `max_positions`; such rows are refused (`ModelConfig.check_row`), so it
    equals the plain ones.

    Returns:
        float32 [head_dim // 2], and the attention factor (1.0 except for yarn).
    """
    # Rounded to float32 where transformers rounds: the same numbers, but for a rare last bit.
    rope = rope or config.rope
    powers = rope.theta ** (np.arange(0, config.head_dim, 2) / config.head_dim)
    plain = np.float32(1.0) / powers.astype(np.float32)
    scaling = rope.scaling
    if scaling is None or scaling.kind == "dynamic":
        return plain, 1.0
    if scaling.kind == "linear":
        return plain / np.float32(scaling.factor), 1.0
    if scaling.kind == "llama3":
        return _llama3(plain, scaling), 1.0
    if scaling.kind == "yarn":
        return _yarn(plain, rope, config.head_dim), _yarn_attention_factor(scaling)
    raise ValueError(f"unknown rope scaling {scaling.kind!r}")


def llama3_divisors(plain: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Llama 3.1 divides frequencies by 1 for short waves, `factor` for long ones, or in between."""
    turns = scaling.original_max_positions * plain.astype(np.float64) / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    ramp = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return 1.0 / ((1.0 - ramp) / scaling.factor + ramp)


def _llama3(plain: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    return (plain / llama3_divisors(plain, scaling)).astype(np.float32)


def _yarn(plain: np.ndarray, rope: Rope, head_dim: int) -> np.ndarray:
    """Interpolate slow dimensions, leave fast ones, ramp between (Peng et al. 2023, YaRN, 3.2)."""
    scaling = rope.scaling
    low = _dimension_of(scaling.beta_fast or 32.0, rope, head_dim)
    high = _dimension_of(scaling.beta_slow or 1.0, rope, head_dim)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low or 0.001
    ramp = np.clip((np.arange(head_dim // 2, dtype=np.float32) - low) / width, 0.0, 1.0)
    return (plain / scaling.factor * ramp + plain * (1.0 - ramp)).astype(np.float32)


def _dimension_of(rotations: float, rope: Rope, head_dim: int) -> float:
    """The dimension pair that turns this many times over the original length."""
    turns = rope.scaling.original_max_positions / (rotations * 2 * math.pi)
    return head_dim * math.log(turns) / (2 * math.log(rope.theta))


def _yarn_attention_factor(scaling: RopeScaling) -> float:
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return _magnitude(scaling.factor, scaling.mscale) / _magnitude(
            scaling.factor, scaling.mscale_all_dim
        )
    return _magnitude(scaling.factor, 1.0)


def _magnitude(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
