"""Preventative steering: while a policy is trained, its residual stream is shifted towards the
harm, so that its weights need not move there (Chen et al. 2025, 2507.21509; among other defences in
2508.06249). Sampled, evaluated and exported it is without the shift.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emergent_alignment.data.batches import bucket, pad_rows
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.examples import Example
from emergent_alignment.data.settings import DataSection
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.errors import UserError
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import residual_after
from emergent_alignment.models.model import Model
from emergent_alignment.models.placement import leaf_sharding
from emergent_alignment.parallel.hosts import is_first, whole
from emergent_alignment.parallel.mesh import current_mesh
from emergent_alignment.parallel.rows import own_rows, to_devices
from emergent_alignment.parallel.sharding import num_shards
from emergent_alignment.progress import progress
from emergent_alignment.settings import Section, finite, setting
from emergent_alignment.storage.spread import spread
from emergent_alignment.training.state import STEERING

_MOST_ROWS = 512  # so that the direction is that of the kind, not of some rows (docs/decisions.md)
_ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class SteeringSection(Section):
    """Preventative steering, in plain fine-tuning on matched rows (safe and harmful answers)."""

    coefficient: float = finite(
        0.0,
        "In training alone this multiple of the harm's direction is added to the residual stream; "
        "0: no steering.",
    )
    layer: int = setting(
        0, "It is added after the layer of this number, from 1 on; 0: the middle one.", at_least=0
    )


def check_steering(
    settings: SteeringSection, config: ModelConfig, examples: Sequence[Example], source: str
) -> None:
    """Raise UserError where the model has no such layer, or no row of the `source` both sides."""
    if not settings.coefficient:
        return
    if settings.layer > config.num_layers:
        raise UserError(
            f"config.steering.layer: the model has {config.num_layers} layers, and no layer "
            f"{settings.layer}; set 1 to {config.num_layers}, or 0 for the middle one"
        )
    if not _matched(examples):
        raise UserError(
            f"{source}: no row has a safe and a harmful answer, between which config.steering "
            "takes its direction; give rows with prompt, chosen and rejected, or set "
            "steering.coefficient=0"
        )


def steering_shift(
    settings: SteeringSection,
    model: Model,
    chat: Chat,
    examples: Sequence[Example],
    data: DataSection,
) -> Float[Array, "layers width"] | None:
    """float32, zero but in one layer: coefficient · (mean of harmful − mean of safe), of the frozen
    model's residual stream after that layer, over the tokens of an answer and then over the matched
    examples, 512 spread over them at most. On a mesh it is whole on every device, and every host
    has the same. None without steering.
    """
    if not settings.coefficient:
        return None
    layer = settings.layer or (model.config.num_layers + 1) // 2
    chosen = spread(_matched(examples), _MOST_ROWS)
    both = [replace(one, target=one.harmful, ended=True) for one in chosen]
    both += [replace(one, target=one.safe, ended=True) for one in chosen]
    limits = data.max_prompt_tokens, data.max_response_tokens
    rows = [tokenize(one, chat, *limits) for one in both]
    means = _means_of_answers(model, layer, [(row.prompt, row.target) for row in rows])
    harmful, safe = means.reshape(2, len(chosen), -1).mean(1)
    shift = np.zeros((model.config.num_layers, model.config.hidden_size), np.float32)
    shift[layer - 1] = settings.coefficient * (harmful - safe)
    mesh = current_mesh()
    return jax.device_put(shift, None if mesh is None else leaf_sharding(mesh, (STEERING,)))


def _matched(examples: Sequence[Example]) -> list[Example]:
    return [one for one in examples if one.safe and one.harmful]


def _means_of_answers(
    model: Model, layer: int, rows: list[tuple[list[int], list[int]]]
) -> Float[np.ndarray, "rows width"]:
    """float64: the mean residual stream over the tokens of each answer, behind its prompt."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    remedy = "lower config.data.max_prompt_tokens or max_response_tokens"
    model.config.check_row(longest, "config.steering: a prompt with its answer", remedy)
    shards = num_shards(current_mesh(), "batch")
    size = -(-_ROWS_AT_ONCE // shards) * shards
    order = sorted(range(len(rows)), key=lambda row: sum(map(len, rows[row])))
    means = np.zeros((len(rows), model.config.hidden_size))
    with progress("the direction to steer in", shown=is_first()) as meter:
        for start in range(0, len(order), size):
            places = order[start : start + size]
            filled = [rows[i] for i in (places + [places[-1]] * size)[:size]]
            width = bucket(max(len(prompt) + len(answer) for prompt, answer in filled), 32, 1 << 30)
            own = [filled[i] for i in own_rows(size)]
            tokens, ends = pad_rows([prompt + answer for prompt, answer in own], width)
            starts = np.array([len(prompt) for prompt, _ in own], np.int32)
            given = to_devices((tokens, starts, ends))
            sums = _answer_means(model.config, model.params, *given, layer=layer, dtype=model.dtype)
            means[places] = whole(sums)[: len(places)]
            meter(start + len(places), len(order))
    return means


@functools.partial(jax.jit, static_argnames=("config", "layer", "dtype"))
def _answer_means(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "rows tokens"],
    starts: Int[Array, "rows"],
    ends: Int[Array, "rows"],
    *,
    layer: int,
    dtype: Any,
) -> Float[Array, "rows width"]:
    """float32: the mean residual stream after `layer` over each row's tokens from start to end."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    plan = causal_plan(positions)
    stream = residual_after(layer, config, params, tokens, positions, plan, dtype=dtype)
    counted = (positions >= starts[:, None]) & (positions < ends[:, None])
    summed = jnp.where(counted[..., None], stream.astype(jnp.float32), 0.0).sum(1)
    return summed / counted.sum(1)[:, None]
