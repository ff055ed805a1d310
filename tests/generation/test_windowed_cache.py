"""Layers with a window hold their window and no more, and nothing that is said or read on top of
them changes by it: prompts shorter and longer than the window, shared by several answers, with
sinks, behind a shared beginning, and cut short."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import USERS_FUSIONS
from walk_jaxpr import array_shapes

from emergent_alignment.data.batches import pad_rows
from emergent_alignment.generation.prefill import Prompts, prefill
from emergent_alignment.generation.sampler import Sampler, decode, sampler_settings
from emergent_alignment.losses import vocabulary_logits
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.cache import chosen_branches, cut_block, read
from emergent_alignment.models.forward import forward, unembedding
from emergent_alignment.randomness import row_keys

WINDOW, PROMPT_WIDTH, WIDTH, SAMPLES = 4, 12, 11, 3
LENGTHS, LONGEST = (1, 3, 4, 9, 12), 32
MIXED = {"num_layers": 4, "layer_windows": (WINDOW, None) * 2}
EXPERTS = {"num_experts": 4, "experts_per_token": 2, "expert_size": 16, "gate_limit": 1.0}
CHANGES = {
    "llama": MIXED,
    "mistral": {"layer_windows": (WINDOW, WINDOW)},
    "gpt_oss": {**MIXED, **EXPERTS, "normalised_experts": True, "output_bias": True},
}


@pytest.fixture(scope="module", params=CHANGES)
def made(request, tiny_config, tiny_params):
    """(config, params): some of the layers with a window, all of them, and some with sinks."""
    config = tiny_config(request.param, **CHANGES[request.param])
    return config, tiny_params(config)


@functools.partial(jax.jit, static_argnames="config")
def full_hidden(config, params, tokens):
    """The final hidden states of whole rows, by a forward pass without any cache."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return forward(config, params, tokens, positions, causal_plan(positions))[0]


@functools.partial(jax.jit, static_argnames="config")
def full_log_probs(config, params, tokens):
    hidden = full_hidden(config, params, tokens)
    return jax.nn.log_softmax(vocabulary_logits(hidden, unembedding(params), None))


def rows_of(lengths, seed=0) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(1, 96, length).tolist() for length in lengths]


def answered(config, params, prompts: Prompts, ends=(), **options):
    """Three samples behind each prompt, and their block."""
    batch = len(prompts.last)
    keys = row_keys(jax.random.key(0), np.arange(batch * SAMPLES)).reshape(batch, SAMPLES)
    sampler = Sampler(sampler_settings(ends, WIDTH, temperature=1.5), keys)
    return decode(config, params, prompts, sampler, jnp.ones(batch, bool), width=WIDTH, **options)


@pytest.mark.parametrize("beginning", [0, 7])
def test_several_answers_to_a_prompt_are_those_of_the_full_forward(made, beginning):
    """… each token's log-prob, past the window in the prompt, in the answer, and in a beginning
    that all prompts share."""
    config, params = made
    before, (start, *prompts) = None, rows_of((beginning, *LENGTHS))
    if beginning:
        before = prefill(config, params, *pad_rows([start], beginning))
    held = prefill(config, params, *pad_rows(prompts, PROMPT_WIDTH), before)
    samples = jax.device_get(answered(config, params, held)[0])
    assert len({tuple(answer) for answer in samples.tokens[-1].tolist()}) == SAMPLES
    for sample in range(SAMPLES):
        answers = samples.tokens[:, sample]
        whole = [[*start, *prompt, *answer] for prompt, answer in zip(prompts, answers)]
        log_probs = np.asarray(full_log_probs(config, params, pad_rows(whole, LONGEST)[0]))
        for row, answer in enumerate(answers):
            places = np.arange(WIDTH) + beginning + LENGTHS[row] - 1
            found, expected = samples.log_probs[row, sample], log_probs[row, places, answer]
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropped", [0, 1, 5])
def test_behind_answers_that_are_kept_one_reads_on_wherever_they_are_cut(made, dropped):
    """… though others of the batch wrote on after they had ended."""
    config, params = made
    prompts, question = rows_of(LENGTHS), [7, 8, 9]
    held = prefill(config, params, *pad_rows(prompts, PROMPT_WIDTH))
    samples, block = answered(config, params, held, ends=tuple(range(3, 11)), keep_block=True)
    lengths = np.asarray(samples.lengths)
    assert lengths.min() < WINDOW < lengths.max()
    for sample in range(SAMPLES):
        kept = np.maximum(lengths[:, sample] - 1 - dropped, 0)
        ends = held.ends + kept
        own = cut_block(chosen_branches(block, np.array([sample])), ends)
        asked = np.tile(question, (len(prompts), 1, 1))
        hidden, _ = read(
            config,
            params,
            asked,
            np.full((len(prompts), 1), len(question)),
            ends[:, None],
            (*held.context, own),
        )
        answers = [samples.tokens[row, sample, :end] for row, end in enumerate(kept)]
        whole = [[*prompt, *answer, *question] for prompt, answer in zip(prompts, answers)]
        tokens, sizes = pad_rows(whole, LONGEST)
        expected = full_hidden(config, params, tokens)[np.arange(len(whole)), sizes - 1]
        np.testing.assert_allclose(hidden[:, 0, -1], expected, rtol=1e-4, atol=1e-4)


def test_no_program_holds_more_of_a_windowed_layer_than_its_window(tiny_config, tiny_params):
    """Of 4 windowed layers and 2 that see all: what reading leaves, and what decoding makes."""
    batch, prompt, width = 4, 96, 256

    def compiled(window):
        config = tiny_config(num_layers=6, layer_windows=(window, window, None) * 2)
        params = tiny_params(config)
        held = prefill(config, params, np.ones((batch, prompt), int), np.full(batch, prompt))
        keys = row_keys(jax.random.key(0), np.arange(batch))[:, None]
        sampler = Sampler(sampler_settings((), width), keys)
        inputs = params, held, sampler, jnp.ones(batch, bool)
        jaxpr = jax.make_jaxpr(lambda *inputs: decode(config, *inputs, width=width))(*inputs).jaxpr
        program = decode.lower(config, *inputs, width=width).compile(USERS_FUSIONS)
        return held.context[0].keys, set(array_shapes(jaxpr)), program.memory_analysis()

    keys, shapes, made = compiled(WINDOW)
    heads = keys[0].shape[4:]
    assert [x.shape[:4] for x in keys] == [(4, batch, 1, WINDOW), (2, batch, 1, prompt)]
    tail = batch, 1, *heads
    slots = {(x[0], x[3]) for x in shapes if len(x) == 6 and (*x[1:3], *x[4:]) == tail}
    assert {width for layers, width in slots if layers == 4} == {WINDOW}
    assert {width for layers, width in slots if layers == 2} >= {prompt, width}
    assert all(layers < 6 for layers, _ in slots), "nothing has all layers together"

    *_, more = compiled(prompt + width)
    per_slot = 2 * 4 * batch * heads[0] * heads[1] * 4  # keys and values of 4 layers
    prompts = more.argument_size_in_bytes - made.argument_size_in_bytes
    answers = more.temp_size_in_bytes - made.temp_size_in_bytes
    assert 0.9 < prompts / (per_slot * (prompt - WINDOW)) < 1.1
    assert answers > 0.9 * per_slot * (width - WINDOW)


def test_a_window_as_long_as_the_rows_changes_no_bit(tiny_config, tiny_params):
    """… of what a model says whose layers all see everything."""
    prompts = rows_of(LENGTHS)
    found = []
    for windows in (None, (PROMPT_WIDTH + WIDTH,) * 2):
        config = tiny_config(layer_windows=windows)
        held = prefill(config, tiny_params(tiny_config()), *pad_rows(prompts, PROMPT_WIDTH))
        found.append(jax.device_get(answered(config, tiny_params(tiny_config()), held)[0]))
    jax.tree.map(np.testing.assert_array_equal, *found)
