"""What a model says of answers that it is given, token by token."""

import numpy as np
from jaxtyping import Float

from emergent_alignment.data.batches import few_widths, pad_rows
from emergent_alignment.generation.prefill import answer_token_log_probs, prefill
from emergent_alignment.generation.text import Batching
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.hosts import largest
from emergent_alignment.parallel.rows import row_multiple, rows_held, to_devices


def log_probs_as_read(
    model: Model,
    params: dict,
    prompts: list[list[int]],
    answers: list[list[int]],
    batching: Batching,
) -> list[Float[np.ndarray, "tokens"]]:
    """float32 log P of each token of every answer behind its prompt, batch by batch. Several hosts
    give as many rows each, and get those of their own."""
    size = min(batching.size, max(len(prompts), 1))
    size = -(-size // row_multiple()) * row_multiple()
    read: list[np.ndarray] = []
    for start in range(0, len(prompts), size):
        rows = slice(start, start + size)
        asked = to_devices(_padded(prompts[rows], size, batching.width_step))
        given, lengths = to_devices(_padded(answers[rows], size, batching.width_step))
        held = prefill(model.config, params, *asked, dtype=model.dtype)
        log_probs = rows_held(
            answer_token_log_probs(
                model.config, params, held, given[:, None], lengths[:, None], dtype=model.dtype
            )
        )
        read += [row[0, : len(answer)] for row, answer in zip(log_probs, answers[rows])]
    return read


def _padded(rows: list[list[int]], size: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    width = largest(few_widths(max(map(len, rows)), step))
    return pad_rows(rows + [[]] * (size - len(rows)), width)
