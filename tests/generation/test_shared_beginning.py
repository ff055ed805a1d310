"""Prompts that begin alike: the beginning is read once, and every answer stays what it was."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_chat_model import tiny_chat_config, tiny_chat_tokenizer

from emergent_alignment.data.batches import common_beginning, split_beginning
from emergent_alignment.data.chat import read_chat
from emergent_alignment.generation import text
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Batching, read_beginning, sample_answers
from emergent_alignment.models.model import Model, random_params


@pytest.fixture(scope="module")
def model() -> Model:
    """One layer sees all, and one a window that is shorter than the beginning."""
    config = dataclasses.replace(tiny_chat_config(), layer_windows=(24, None)).checked("test")
    params = jax.tree.map(lambda leaf: leaf * 4, random_params(config))
    return Model(config, tiny_chat_tokenizer(), params)


def prompts_that_begin_alike(count: int, alike: int, seed: int) -> list[list[int]]:
    """Rests of 1 to 9 tokens."""
    draw = np.random.default_rng(seed)
    start = draw.integers(3, 512, alike).tolist()
    return [start + draw.integers(3, 512, draw.integers(1, 10)).tolist() for _ in range(count)]


@pytest.mark.parametrize("temperature", [0.0, 2.0], ids=["greedy", "sampled"])
@pytest.mark.parametrize("batch_size", [3, 8], ids=["refilled", "whole batches"])
def test_answers_after_a_shared_beginning_equal_those_of_whole_prompts(
    model, batch_size, temperature
):
    chat = read_chat(model.tokenizer)
    prompts = prompts_that_begin_alike(8, alike=37, seed=1)
    # Answers of all lengths: a part of the vocabulary ends them.
    ends = sampler_settings(tuple(range(3, 11)), 12, temperature=temperature, top_p=0.95)
    batching = Batching(batch_size, width_step=16, ids=np.arange(20, 28))
    key = jax.random.key(3)

    def answers(rows, **options):
        found = sample_answers(model, model.params, chat, rows, key, ends, batching, **options)
        return dict(found)

    alone = answers(prompts)
    beginning = common_beginning(prompts)
    assert len(beginning) >= 37
    rests = [row[len(beginning) :] for row in prompts]
    before = read_beginning(model, model.params, beginning, width_step=16)
    shared = answers(rests, before=before)
    assert alone.keys() == shared.keys() == set(range(8))
    assert len({len(answer.tokens) for answer in alone.values()}) > 1
    for place, answer in alone.items():
        assert shared[place].tokens == answer.tokens
        assert shared[place].ended == answer.ended
        np.testing.assert_allclose(shared[place].log_probs, answer.log_probs, rtol=1e-4, atol=1e-4)


def test_the_shared_beginning_is_read_once_and_outlives_every_call(model, monkeypatch):
    """What is read before is given to many calls: none of them may donate it."""
    chat = read_chat(model.tokenizer)
    prompts = prompts_that_begin_alike(5, alike=37, seed=2)
    reads = []

    def counted(*arguments, **options):
        reads.append(arguments[2].shape)
        return original(*arguments, **options)

    original = text.prefill
    monkeypatch.setattr(text, "prefill", counted)
    before = read_beginning(model, model.params, prompts[0][:37], width_step=16)
    settings = sampler_settings(chat.end_tokens, 12, temperature=1.0)
    for rows in (prompts, prompts, prompts[:1]):
        rests = [row[37:] for row in rows]
        key = jax.random.key(0)
        given = model, model.params, chat, rests, key, settings, Batching(3, width_step=16)
        sampled = sample_answers(*given, before=before)
        assert len(list(sampled)) == len(rows)
    assert reads == [(1, 48)]


def test_the_common_beginning_leaves_something_of_each_row():
    draw = np.random.default_rng(0)
    for _ in range(300):
        count, most = draw.integers(1, 6), draw.integers(1, 8)
        rows = [draw.integers(0, 2, draw.integers(1, most + 1)).tolist() for _ in range(count)]
        sizes = range(min(map(len, rows)))
        longest = max(size for size in sizes if all(row[:size] == rows[0][:size] for row in rows))
        assert common_beginning(rows) == rows[0][:longest]
        assert split_beginning(iter(rows)) == (rows[0][:longest], [row[longest:] for row in rows])
