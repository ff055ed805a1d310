"""Corrections: what the frozen copy writes in place of an answer it disapproves of.

`rewrite` shows it the answer and asks for a better one; `fresh` lets it answer the prompt anew
without seeing the flagged answer.
"""

from typing import Literal

import jax

from emergent_alignment.conscience.question import (
    Layout,
    ask,
    critique_request,
    rewrite_request,
)
from emergent_alignment.data.chat import Chat, Message
from emergent_alignment.generation.sampler import SamplerSettings
from emergent_alignment.generation.text import Answer, sample_answers
from emergent_alignment.models.model import Model

Link = Literal["rewrite", "fresh"]


def write_corrections(
    model: Model,
    params: dict,
    chat: Chat,
    link: Link,
    layout: Layout,
    prompts: list[list[Message]],
    answers: list[str],
    critiques: list[str],
    key: jax.Array,
    sampler: SamplerSettings,
    *,
    batch_size: int,
    max_tokens: int,
) -> list[Answer]:
    """One correction for each (prompt, answer); `fresh` reads only the prompts."""
    if link == "fresh":
        rows = [chat.prompt_tokens(prompt) for prompt in prompts]
    else:
        rows = [
            ask(chat, layout, prompt, answer, rewrite_request(critique))
            for prompt, answer, critique in zip(prompts, answers, critiques)
        ]
    return _sampled(model, params, chat, rows, key, sampler, batch_size, max_tokens)


def write_critiques(
    model: Model,
    params: dict,
    chat: Chat,
    layout: Layout,
    prompts: list[list[Message]],
    answers: list[str],
    key: jax.Array,
    sampler: SamplerSettings,
    *,
    batch_size: int,
    max_tokens: int,
) -> list[str]:
    """The frozen copy's short written critique of each answer."""
    rows = [
        ask(chat, layout, prompt, answer, critique_request())
        for prompt, answer in zip(prompts, answers)
    ]
    found = _sampled(model, params, chat, rows, key, sampler, batch_size, max_tokens)
    return [answer.text for answer in found]


def _sampled(model, params, chat, rows, key, sampler, batch_size, max_tokens) -> list[Answer]:
    rows = [row[-max_tokens:] for row in rows]
    found: list[Answer | None] = [None] * len(rows)
    for index, answer in sample_answers(
        model, params, chat, rows, key, sampler, batch_size=batch_size
    ):
        found[index] = answer
    return found
