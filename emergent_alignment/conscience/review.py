"""Review: the frozen copy's score of an answer, read off its logits.

score = log P(approving words) − log P(disapproving words), in nats, at the place of the reply;
with polarity "both" the mean of the positive form and of the negated form turned round.
"""

import functools
import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emergent_alignment.conscience.question import (
    Layout,
    Polarity,
    Question,
    answer_words,
    ask,
    question_text,
)
from emergent_alignment.data.batches import bucket, pad_rows
from emergent_alignment.data.chat import Chat, Message
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.model import Model, forward, unembedding

WORD_TOKENS_STEP = 16


@dataclass(frozen=True)
class ReviewSettings:
    """question, layout, polarity; rows a forward pass; the longest review prompt (it keeps its
    end: the question)."""

    question: Question
    layout: Layout = "quote"
    polarity: Polarity = "positive"
    batch_size: int = 16
    max_tokens: int = 1024


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def word_margin(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch tokens"],
    lengths: Int[Array, "batch"],
    approving: Int[Array, "words"],
    disapproving: Int[Array, "words"],
    *,
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "batch"]:
    """log P(approving) − log P(disapproving) for the token after each right-padded row.

    Word ids are padded with -1. Only the last position meets the vocabulary.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    hidden, _ = forward(config, params, tokens, positions, causal_plan(positions), dtype=dtype)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    matrix = unembedding(params, dtype)
    logits = jnp.matmul(last, matrix, preferred_element_type=jnp.float32)

    def log_mass(words):
        return jax.nn.logsumexp(jnp.where(words >= 0, logits[:, words], -jnp.inf), axis=-1)

    return log_mass(approving) - log_mass(disapproving)


def scores(
    model: Model,
    params: dict,
    chat: Chat,
    settings: ReviewSettings,
    prompts: list[list[Message]],
    answers: list[str],
) -> np.ndarray:
    """float32[answers]: the score of each answer to its prompt, higher is more approving."""
    forms = {"positive": (False,), "negated": (True,), "both": (False, True)}[settings.polarity]
    total = np.zeros(len(answers), np.float32)
    for negated in forms:
        request = question_text(settings.question, negated=negated)
        rows = [
            ask(chat, settings.layout, prompt, answer, request)
            for prompt, answer in zip(prompts, answers)
        ]
        words = settings.question.approving, settings.question.disapproving
        approving, disapproving = words[::-1] if negated else words
        total += _margins(model, params, chat, settings, rows, approving, disapproving)
    return total / len(forms)


def _margins(model, params, chat, settings, rows, approving, disapproving) -> np.ndarray:
    """`word_margin` over rows of any number and length, in batches of fixed shapes; rows of
    like length go together so that little is padded."""
    ids = [_padded_words(answer_words(chat, words)) for words in (approving, disapproving)]
    if any(len(row) > settings.max_tokens for row in rows):
        # Python shows a warning once for each text: not at every step of a run.
        warnings.warn(
            f"some reviews are longer than {settings.max_tokens} tokens and keep their end; see "
            "config.conscience.max_review_tokens",
            stacklevel=2,
        )
    rows = [row[-settings.max_tokens :] for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    result = np.zeros(len(rows), np.float32)
    for start in range(0, len(rows), settings.batch_size):
        chosen = order[start : start + settings.batch_size]
        batch = [rows[i] for i in chosen] + [[0]] * (settings.batch_size - len(chosen))
        width = bucket(max(map(len, batch)), 32, settings.max_tokens)
        tokens, lengths = pad_rows(batch, width)
        margins = word_margin(model.config, params, tokens, lengths, *ids, dtype=model.dtype)
        result[chosen] = np.asarray(margins)[: len(chosen)]
    return result


def _padded_words(tokens: list[int]) -> np.ndarray:
    padded = np.full(bucket(len(tokens), WORD_TOKENS_STEP, 1 << 30), -1, np.int32)
    padded[: len(tokens)] = tokens
    return padded
