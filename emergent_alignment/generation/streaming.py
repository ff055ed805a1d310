"""One answer, token by token as it is drawn: the very tokens that `decode` draws at once.

Each call of the compiled program draws one token; programs are as many as `decode` has stages.
"""

import functools
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, Key

from emergent_alignment.data.batches import bucket, pad_rows
from emergent_alignment.data.chat import Chat
from emergent_alignment.generation.prefill import prefill
from emergent_alignment.generation.sampler import Sampler, SamplerSettings, advance, begin, stages
from emergent_alignment.generation.text import Answer, answers_of, check_prompts
from emergent_alignment.models.model import Model

_begin = jax.jit(begin, static_argnames=("config", "width", "dtype"))
_advance = jax.jit(
    advance, static_argnames=("config", "filled", "dtype"), donate_argnames=("state",)
)


def stream_answer(
    model: Model,
    params: dict,
    chat: Chat,
    prompt: list[int],
    key: Key[Array, ""],
    settings: SamplerSettings,
    *,
    width_step: int = 32,
) -> Iterator[Answer]:
    """The answer as far as it has come, after each token; the last one is the whole answer. Raises
    UserError where prompt and answer are more than the model can read."""
    check_prompts(model, [prompt], settings)
    width = bucket(int(settings.max_new_tokens), width_step, 1 << 30)
    tokens, lengths = pad_rows([prompt], bucket(len(prompt), width_step, 1 << 30))
    sampler = Sampler(settings, key.reshape(1, 1))
    given = model.config, params
    prompts = prefill(*given, tokens, lengths, dtype=model.dtype)
    live = np.ones(1, bool)
    state = _begin(*given, prompts, sampler, live, width=width, dtype=model.dtype)
    answer = answers_of(state.samples, chat)[0]
    yield answer
    limit = min(int(settings.max_new_tokens), width)
    for filled in stages(width):
        go_on = functools.partial(_advance, *given, prompts, sampler, filled=filled)
        for until in range(len(answer.tokens) + 1, min(limit, filled + 1) + 1):
            if answer.ended:
                return
            state = go_on(state, until=np.int32(until), dtype=model.dtype)
            answer = answers_of(state.samples, chat)[0]
            yield answer


def settled_text(answer: Answer) -> str:
    """The text that later tokens cannot change: a letter may need several tokens."""
    return answer.text if answer.ended else answer.text.rstrip("\ufffd").rstrip()
