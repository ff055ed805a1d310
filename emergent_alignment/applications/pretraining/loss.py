"""The loss of raw text: next tokens of packed windows, and the pairs of reviewed continuations."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emergent_alignment.applications.pretraining.windows import TextBatch, Windows
from emergent_alignment.losses import task_loss
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.forward import forward, sharded_token_log_probs
from emergent_alignment.training.state import policy_params
from emergent_alignment.training.step import Objective, StepSettings, batch_loss, batch_totals


def window_log_probs(
    settings: StepSettings, params: dict, windows: Windows
) -> Float[Array, "windows tokens"]:
    """float32 log-probs of every token's next one; a document sees nothing but itself."""
    hidden, _ = forward(
        settings.config,
        params,
        windows.tokens,
        windows.positions,
        causal_plan(windows.positions, windows.segments),
        dtype=settings.dtype,
        remat=settings.remat,
    )
    return sharded_token_log_probs(
        params, hidden, windows.targets, chunk_size=settings.chunk_size, dtype=settings.dtype
    )


def text_loss(
    settings: StepSettings, trainable: Any, frozen: dict, batch: TextBatch, totals: dict
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Σ NLL of all next tokens / their number, and of the reviewed continuations λ · alignment
    loss + α · NLL(chosen), over the prefixes that were reviewed (docs/design.md §3)."""
    windows = batch.windows
    log_probs = window_log_probs(settings, policy_params(trainable, frozen, settings.lora), windows)
    task = task_loss(log_probs, windows.predicts, num_tokens=totals["next_tokens"])
    metrics = {"task_loss": jax.lax.stop_gradient(task)}
    if batch.pairs is None:
        return task, metrics
    aligned, of_pairs = batch_loss(settings, trainable, frozen, batch.pairs, totals["pairs"])
    return task + aligned, of_pairs | metrics


def text_totals(batch: TextBatch) -> dict[str, Any]:
    """The whole batch's denominators: next tokens, and those of the reviewed continuations."""
    next_tokens = jnp.maximum(batch.windows.predicts.sum().astype(jnp.float32), 1.0)
    pairs = None if batch.pairs is None else batch_totals(batch.pairs)
    return {"next_tokens": next_tokens, "pairs": pairs}


RAW_TEXT = Objective(text_loss, text_totals)
