"""Llama 3's rope scaling from a GGUF file, which carries only what each frequency is divided by."""

from __future__ import annotations

import numpy as np

from emergent_alignment.errors import UserError
from emergent_alignment.models.rope import llama3_divisors
from emergent_alignment.models.rope_config import RopeScaling

_TOLERANCE = 1e-5  # relative; the divisors are stored as float32
# Low and high frequency factor and original length of Llama 3.1, 3.2 and 3.3.
_PUBLISHED = (1.0, 4.0, 8192)


def recover_llama3_scaling(
    divisors: np.ndarray, theta: float, head_dim: int, *, where: str
) -> RopeScaling | None:
    """The Llama 3 scaling whose divisors are these, to float32 precision; None where all are 1.

    1/divisor = (1 − r)/factor + r, where r = clip((turns − low)/(high − low), 0, 1) and
    turns = original/wavelength. `factor` is the largest divisor. Only original/low and high/low
    show, so low is set to 1, and a line through the ramp's points gives the other two.

    Args:
        divisors: float32 [head_dim // 2].
        theta: the rope's base.
        head_dim: of one head.
        where: the file, for errors.

    Raises:
        UserError: when no such scaling gives these divisors.
    """
    if divisors.shape != (head_dim // 2,):
        raise UserError(
            f"{where}: rope_freqs.weight has shape {list(divisors.shape)}, but heads of {head_dim}"
            f" dimensions need [{head_dim // 2}]. Choose another conversion of the model."
        )
    if not (np.isfinite(divisors) & (divisors > 0)).all():
        raise UserError(
            f"{where}: rope_freqs.weight holds divisors that are not positive numbers. Download the"
            " file again."
        )
    plain = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    if np.all(divisors == 1.0):
        return None
    factor = float(divisors.max())
    candidates = [_PUBLISHED, *_fitted(divisors, plain, factor)]
    for low, high, original in candidates:
        scaling = RopeScaling(
            "llama3", factor, original, low_freq_factor=low, high_freq_factor=high
        )
        if np.allclose(llama3_divisors(plain, scaling), divisors, rtol=_TOLERANCE, atol=0.0):
            return scaling
    raise UserError(
        f"{where}: rope_freqs.weight holds frequency divisors that are not those of Llama 3's"
        " scaling, the only kind supported as a tensor. Choose another conversion of the model, or"
        " its safetensors."
    )


def _fitted(
    divisors: np.ndarray, plain: np.ndarray, factor: float
) -> list[tuple[float, float, int]]:
    """The (low, high, original) of the line through the ramp's inner points, if there are two."""
    ramp = (1.0 / divisors.astype(np.float64) - 1.0 / factor) / (1.0 - 1.0 / factor)
    inner = (divisors > 1.0) & (divisors < factor)
    if inner.sum() < 2:
        return []
    # r = turns_per_token·original/(high − 1) − 1/(high − 1), with low = 1.
    slope, intercept = np.polyfit(plain[inner] / (2 * np.pi), ramp[inner], 1)
    if not (slope > 0 and intercept < 0):
        return []
    high = 1.0 - 1.0 / intercept
    original = round(slope * (high - 1.0))
    return [(1.0, round(high, 3), original), (1.0, float(high), original)]
