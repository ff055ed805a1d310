"""The first token of an answer that leaves another one: any but the one that stands there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emergent_alignment.data.batches import few_widths, pad_rows
from emergent_alignment.data.chat import Chat
from emergent_alignment.generation.prefill import prefill
from emergent_alignment.generation.sampler import Sampler, SamplerSettings, choose
from emergent_alignment.generation.text import Answer, Batching
from emergent_alignment.losses import vocabulary_logits
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import unembedding
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.hosts import largest
from emergent_alignment.parallel.rows import row_multiple, rows_held, to_devices
from emergent_alignment.parallel.sharding import RULES, laid_out, placed_rows, replicated
from emergent_alignment.randomness import row_keys


def leaving_tokens(
    model: Model,
    params: dict,
    chat: Chat,
    prompts: list[list[int]],
    left: list[int],
    key: jax.Array,
    settings: SamplerSettings,
    batching: Batching,
) -> list[Answer]:
    """A token behind each prompt that is neither the one in `left` nor an end token, as the
    beginning of an answer, with its raw log-prob. A prompt draws from `key` and its id."""
    size = -(-batching.size // row_multiple()) * row_multiple()
    padding = size - len(prompts)
    width = largest(few_widths(max(map(len, prompts), default=1), batching.width_step))
    tokens, lengths = pad_rows(prompts + [[]] * padding, width)
    keys = row_keys(key, np.append(batching.ids_of(len(prompts)), np.zeros(padding, int)))
    rows = tokens, lengths, np.append(left, np.zeros(padding)).astype(np.int32), keys
    tokens, lengths, other_than, keys = to_devices(rows)
    drawn = _another(
        model.config,
        params,
        tokens,
        lengths,
        other_than,
        Sampler(settings, keys),
        dtype=model.dtype,
    )
    chosen, log_probs = rows_held(drawn)
    return [
        Answer([int(token)], np.array([log_prob], np.float32), chat.decode([int(token)]), False)
        for token, log_prob in zip(chosen[: len(prompts)], log_probs)
    ]


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def _another(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch tokens"],
    lengths: Int[Array, "batch"],
    other_than: Int[Array, "batch"],
    sampler: Sampler,
    *,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[Int[Array, "batch"], Float[Array, "batch"]]:
    last = prefill(config, params, tokens, lengths, dtype=dtype).last
    logits = vocabulary_logits(placed_rows(last), unembedding(params, dtype), config.logits_cap)
    with laid_out(RULES):
        logits = placed_rows(logits)
        numbers = jnp.arange(logits.shape[-1])
        ends = (numbers[:, None] == sampler.settings.end_tokens).any(-1)
        barred = ends | (numbers == other_than[:, None])
        token = choose(jnp.where(barred, -jnp.inf, logits), sampler.keys, sampler.settings)
        picked = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
        return replicated(token), replicated(picked - jax.nn.logsumexp(logits, axis=-1))
