"""Review: the frozen copy's score of an answer, read off its logits.

score = log P(approving words) − log P(disapproving words), in nats, at the place of the reply;
with polarity "both" the mean of the positive form and of the negated form turned round.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emergent_alignment.conscience.evidence import named_evidence
from emergent_alignment.conscience.question import (
    Layout,
    Polarity,
    Question,
    answer_words,
    question_text,
)
from emergent_alignment.conscience.reader import WIDTH_STEP, Case, Reader, Shown
from emergent_alignment.data.batches import bucket
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.prefill import Prompts, last_hidden
from emergent_alignment.generation.text import given_answer
from emergent_alignment.losses import vocabulary_logits
from emergent_alignment.models.cache import read
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import unembedding
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.rows import rows_held, to_devices
from emergent_alignment.parallel.sharding import replicated

WORD_TOKENS_STEP = 16


@dataclass(frozen=True)
class ReviewSettings:
    """question, layout, polarity; rows a forward pass; the longest review prompt (it keeps its
    end: the question); the name of the evidence that is shown beside answers (evidence.py); and
    of how many tokens widths are multiples."""

    question: Question
    layout: Layout = "quote"
    polarity: Polarity = "positive"
    batch_size: int = 16
    max_tokens: int = 1024
    evidence: str = ""
    width_step: int = WIDTH_STEP

    @property
    def forms(self) -> list["Form"]:
        """The forms of the question that the polarity asks for."""
        negated = {"positive": (False,), "negated": (True,), "both": (False, True)}[self.polarity]
        return [question_form(self.question, negated=turned) for turned in negated]


@dataclass(frozen=True)
class Form:
    """One wording of a question, and the words that speak for and against the answer."""

    request: str
    approving: tuple[str, ...]
    disapproving: tuple[str, ...]


def question_form(question: Question, *, negated: bool) -> Form:
    """The positive form, or the negated one, in which the words change sides."""
    words = question.approving, question.disapproving
    return Form(question_text(question, negated=negated), *(words[::-1] if negated else words))


def reader_of(model: Model, chat: Chat, settings: ReviewSettings, max_prompt: int = 1024) -> Reader:
    """The reader that reviews as the settings say."""
    return Reader(
        model,
        chat,
        settings.layout,
        settings.batch_size,
        max_prompt,
        settings.max_tokens,
        named_evidence(settings.evidence),
        settings.width_step,
    )


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def word_margins(
    config: ModelConfig,
    params: dict,
    before: Prompts,
    tokens: Int[Array, "batch forms tokens"],
    lengths: Int[Array, "batch forms"],
    approving: Int[Array, "forms words"],
    disapproving: Int[Array, "forms words"],
    *,
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "batch forms"]:
    """log P(approving) − log P(disapproving) for what follows each right-padded row of tokens,
    which follow what was read `before`.

    Word ids are padded with -1. Only the last position meets the vocabulary. The margins are whole
    on every device.
    """
    starts = jnp.broadcast_to(before.ends[:, None], lengths.shape)
    hidden, _ = read(config, params, tokens, lengths, starts, before.context, dtype=dtype)
    matrix = unembedding(params, dtype)
    last = last_hidden(hidden, lengths)
    logits = vocabulary_logits(last, matrix, config.logits_cap)

    def log_mass(words):
        picked = jnp.take_along_axis(logits, jnp.maximum(words, 0)[None], axis=-1)
        return jax.nn.logsumexp(jnp.where(words >= 0, picked, -jnp.inf), axis=-1)

    return replicated(log_mass(approving) - log_mass(disapproving))


def form_scores(reader: Reader, before: Shown, rows: list[list[list[int]]], forms: list[Form]):
    """float32[rows, forms]: the score that each form gives; `rows` holds each form's rows of
    whole token lists, and `before` what was read of them."""
    split = [reader.tails(before, form) for form in rows]
    if any(shown is not before for shown, _ in split):
        before, split = reader.nothing, [(reader.nothing, form) for form in rows]
    tails = [tail for _, tail in split]
    tokens, lengths = to_devices(reader.padded_forms(tails))
    words = [
        _padded_words(reader.chat, [getattr(form, side) for form in forms])
        for side in ("approving", "disapproving")
    ]
    margins = word_margins(
        reader.model.config,
        reader.model.params,
        before.held,
        tokens,
        lengths,
        *words,
        dtype=reader.model.dtype,
    )
    return rows_held(margins)[: len(tails[0])]


def review_case(
    reader: Reader, case: Case, forms: list[Form], needed: list[bool] | None = None
) -> np.ndarray:
    """float32[rows, forms]: the score that each form of question gives each answer; of rows
    that are not `needed` it means nothing."""
    rows = [reader.rows(case, [form.request] * len(case.answers), needed) for form in forms]
    return form_scores(reader, reader.before(case, rows), rows, forms)


def scores_by_form(
    reader: Reader,
    forms: list[Form],
    prompts: list[list[Message]],
    answers: list[str],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """float32[answers, forms], for any number of answers; those of like length are reviewed
    together, so that little is padded."""
    order = sorted(range(len(answers)), key=lambda i: len(answers[i]) + len(str(prompts[i])))
    scores = np.zeros((len(answers), len(forms)), np.float32)
    for start in range(0, len(order), reader.batch_size):
        rows = order[start : start + reader.batch_size]
        messages = [prompts[i] for i in rows]
        given = [given_answer(reader.chat, answers[i]) for i in rows]
        shown = reader.read_prompts(messages) if reader.layout == "turn" else None
        case, _ = reader.case(shown, messages, given)
        scores[rows] = review_case(reader, case, forms)
        progress(start + len(rows), len(order))
    return scores


def scores(
    reader: Reader, settings: ReviewSettings, prompts: list[list[Message]], answers: list[str]
) -> np.ndarray:
    """float32[answers]: the score of each answer to its prompt, higher is more approving."""
    return scores_by_form(reader, settings.forms, prompts, answers).mean(-1)


def _padded_words(chat: Chat, words: list[tuple[str, ...]]) -> np.ndarray:
    tokens = [answer_words(chat, spelled) for spelled in words]
    padded = np.full((len(tokens), bucket(max(map(len, tokens)), WORD_TOKENS_STEP, 1 << 30)), -1)
    for row, ids in zip(padded, tokens):
        row[: len(ids)] = ids
    return padded.astype(np.int32)
