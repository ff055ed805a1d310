"""Sampling for whole lists of prompts, and `generate` from conversations to text."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Int

from emergent_alignment.data.batches import bucket, few_widths, pad_rows
from emergent_alignment.data.chat import Chat, read_chat
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.prefill import Prompts, prefill
from emergent_alignment.generation.refilling import BatchShape, sample_refilling
from emergent_alignment.generation.sampler import (
    Sampler,
    SamplerSettings,
    Samples,
    sample,
    sampler_settings,
)
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.hosts import gather_list, largest, own_share
from emergent_alignment.parallel.mesh import current_mesh
from emergent_alignment.parallel.rows import row_multiple, rows_held, to_devices, to_host
from emergent_alignment.randomness import Purpose, key_for, row_keys


@dataclass(frozen=True)
class Answer:
    """One answer: tokens (end token included where it ended), their raw log-probs under the
    parameters that sampled it (empty where it was given), text, and whether it ended by itself.
    """

    tokens: list[int]
    log_probs: np.ndarray
    text: str
    ended: bool


def given_answer(chat: Chat, text: str) -> Answer:
    """An answer that somebody else wrote, with its end token."""
    return Answer(chat.response_tokens(text), np.zeros(0, np.float32), text, True)


def beginning_of(answer: Answer, kept: int, chat: Chat) -> Answer:
    """An answer's first `kept` tokens, as an answer that has not ended."""
    tokens = answer.tokens[:kept]
    return Answer(tokens, answer.log_probs[:kept], chat.decode(tokens), False)


def answers_of(samples: Samples, chat: Chat) -> list[Answer]:
    """One answer a row of samples, [batch] or [batch, samples]: those of a prompt together."""
    samples = rows_held(samples)
    tokens = samples.tokens.reshape(-1, samples.tokens.shape[-1])
    log_probs = np.asarray(samples.log_probs).reshape(tokens.shape)
    answers = []
    for row, length in enumerate(samples.lengths.reshape(-1).tolist()):
        kept = tokens[row, :length].tolist()
        ended = bool(samples.ended.reshape(-1)[row])
        answers.append(Answer(kept, log_probs[row, :length], chat.decode(kept), ended))
    return answers


@dataclass(frozen=True, eq=False)
class Batching:
    """How rows are put into batches, and which rows they are.

    size         rows that run at once, at most
    width_step   prompts are padded to multiples of so many tokens
    ids          int[rows]: a row draws from its id's key, in whatever batch it is; None: its index
    answer_step  room for an answer is a multiple of it, by default of width_step but no more than
                 32: where all have one limit, more room than it needs is only more to compile
    """

    size: int = 16
    width_step: int = 32
    ids: Int[np.ndarray, "rows"] | None = None
    answer_step: int | None = None

    def ids_of(self, num_rows: int) -> Int[np.ndarray, "rows"]:
        return np.arange(num_rows) if self.ids is None else self.ids

    def room(self, max_new_tokens: int) -> int:
        """Tokens that an answer is given room for."""
        step = min(self.width_step, 32) if self.answer_step is None else self.answer_step
        return bucket(max_new_tokens, step, 1 << 30)


def sample_answers(
    model: Model,
    params: dict,
    chat: Chat,
    prompts: list[list[int]],
    key: jax.Array,
    settings: SamplerSettings,
    batching: Batching = Batching(),
    *,
    before: Prompts | None = None,
) -> Iterator[tuple[int, Answer]]:
    """(index, answer) for every prompt of token ids, as they end. A prompt draws from `key` and
    its id, whatever the batch. Where all prompts begin alike, that is read once (`read_beginning`)
    and given as `before`; `prompts` are the rests. Raises UserError before anything is sampled
    where the longest prompt and an answer are more than the model can read.

    More prompts than a batch holds take the places of rows that have ended. On a mesh they go
    batch by batch, since all hosts must take the same steps; several hosts give as many prompts
    each, and get the answers to their own.
    """
    check_prompts(model, prompts, settings, before)
    sampler = Sampler(settings, row_keys(key, batching.ids_of(len(prompts))))
    refills = current_mesh() is None and len(prompts) > batching.size
    batches = _refilled if refills else _whole_batches
    for places, samples in batches(model, params, prompts, sampler, batching, before):
        yield from zip(places, answers_of(samples, chat))


def sample_shares(
    model: Model,
    params: dict,
    chat: Chat,
    prompts: list[list[int]],
    key: jax.Array,
    settings: SamplerSettings,
    batching: Batching = Batching(),
    *,
    before: Prompts | None = None,
) -> Iterator[tuple[int, Answer]]:
    """What `sample_answers` gives, of the same arguments, where every host has all prompts and gets
    all answers: each samples a share of them. From several hosts they come without log-probs, once
    all are there; on one host as they end, with them."""
    if jax.process_count() == 1:
        given = model, params, chat, prompts, key, settings, batching
        yield from sample_answers(*given, before=before)
        return
    own = own_share(list(range(len(prompts))))
    shown = [prompts[i] for i in own]
    batching = replace(batching, ids=batching.ids_of(len(prompts))[own])
    given = model, params, chat, shown, key, settings, batching
    sampled = sample_answers(*given, before=before)
    told = [[own[i], answer.tokens, answer.text, answer.ended] for i, answer in sampled]
    by_index = {index: answer for index, *answer in gather_list(told)}
    for index, (tokens, text, ended) in sorted(by_index.items()):
        yield index, Answer(tokens, np.zeros(0, np.float32), text, ended)


Batches = Iterator[tuple[list[int], Samples]]


def read_beginning(
    model: Model, params: dict, tokens: list[int], *, width_step: int = 32
) -> Prompts:
    """What many prompts begin with, read once: one row that stands for all of theirs."""
    read = pad_rows([tokens], bucket(len(tokens), width_step, 1 << 30))
    return prefill(model.config, params, *read, dtype=model.dtype)


def sample_several(
    model: Model,
    params: dict,
    chat: Chat,
    prompts: list[list[int]],
    key: jax.Array,
    settings: SamplerSettings,
    batching: Batching,
    number: int,
) -> list[list[Answer]]:
    """`number` answers to every prompt, which is read once for all of them; otherwise as
    `sample_answers`, batch by batch."""
    check_prompts(model, prompts, settings, None)
    rows = row_keys(key, batching.ids_of(len(prompts)))
    keys = jax.vmap(lambda row: row_keys(row, np.arange(number)))(rows)
    answers: list[list[Answer]] = [[] for _ in prompts]
    sampler = Sampler(settings, keys)
    for places, samples in _whole_batches(model, params, prompts, sampler, batching, None):
        flat = answers_of(samples, chat)
        for i, place in enumerate(places):
            answers[place] = flat[i * number : (i + 1) * number]
    return answers


def check_prompts(
    model: Model,
    prompts: list[list[int]],
    settings: SamplerSettings,
    before: Prompts | None = None,
) -> None:
    """Raise UserError where the longest prompt and an answer are more than the model can read."""
    begun = 0 if before is None else int(to_host(before.ends).max())
    longest = begun + max(map(len, prompts), default=0)
    room = int(settings.max_new_tokens)
    model.config.check_row(
        longest + room if prompts else 0,
        f"{model.source or 'the model'}: a prompt of {longest} tokens with an answer of {room}",
        "shorten the prompt, or ask for fewer new tokens",
    )


def _refilled(
    model: Model,
    params: dict,
    prompts: list[list[int]],
    sampler: Sampler,
    batching: Batching,
    before: Prompts | None,
) -> Batches:
    room, width_step = batching.room(int(sampler.settings.max_new_tokens)), batching.width_step

    def prompt_width(i: int) -> int:
        """Doubling widths: few programs, and rows that run together are alike."""
        return width_step << (-(-len(prompts[i]) // width_step) - 1).bit_length()

    for widest, places in itertools.groupby(_by_length(prompts), key=prompt_width):
        chosen = list(places)
        for ended, samples in sample_refilling(
            model.config,
            params,
            [prompts[i] for i in chosen],
            replace(sampler, keys=sampler.keys[np.array(chosen)]),
            BatchShape(batching.size, widest, room),
            before=before,
            dtype=model.dtype,
        ):
            yield [chosen[i] for i in ended], samples


def _whole_batches(
    model: Model,
    params: dict,
    prompts: list[list[int]],
    sampler: Sampler,
    batching: Batching,
    before: Prompts | None,
) -> Batches:
    order = _by_length(prompts)
    size = -(-batching.size // row_multiple()) * row_multiple()
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        rows = [prompts[i] for i in chosen] + [[]] * (size - len(chosen))
        prompt_width = largest(few_widths(max(map(len, rows)), batching.width_step))
        tokens, lengths = pad_rows(rows, prompt_width)
        keys = sampler.keys[np.array(chosen + [0] * (size - len(chosen)))]
        tokens, lengths, keys = to_devices((tokens, lengths, keys))
        samples = sample(
            model.config,
            params,
            tokens,
            lengths,
            replace(sampler, keys=keys),
            width=batching.room(int(sampler.settings.max_new_tokens)),
            before=before,
            dtype=model.dtype,
        )
        yield chosen, samples


def _by_length(prompts: list[list[int]]) -> list[int]:
    return sorted(range(len(prompts)), key=lambda i: len(prompts[i]))


def generate(
    model: Model,
    conversations: list[list[Message]],
    *,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    batch_size: int = 16,
) -> list[str]:
    """The model's next answer to each conversation (lists of {"role", "content"}).

    Temperature 0 is greedy. Raises UserError where the tokenizer has no chat template, and
    ValueError for a setting outside its range.
    """
    chat = read_chat(model.tokenizer, model.source)
    settings = sampler_settings(
        chat.end_tokens, max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k
    )
    prompts = [chat.prompt_tokens(conversation) for conversation in conversations]
    texts = [""] * len(prompts)
    batching = Batching(min(batch_size, max(len(prompts), 1)))
    key = key_for(seed, Purpose.GENERATED)
    answers = sample_answers(model, model.policy, chat, prompts, key, settings, batching)
    for index, answer in answers:
        texts[index] = answer.text
    return texts
