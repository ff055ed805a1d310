"""What the compiled programs are: lowered once, the cache in place, and flat in depth."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import USERS_FUSIONS
from tiny_chat_model import write_tiny_chat_model
from walk_jaxpr import array_shapes, loop_bodies

from emergent_alignment.conscience.frozen_hearing import FrozenReviewer
from emergent_alignment.conscience.pairs import ConscienceSettings, review_and_revise
from emergent_alignment.conscience.question import QUESTIONS
from emergent_alignment.conscience.review import ReviewSettings, reader_of
from emergent_alignment.data.chat import read_chat
from emergent_alignment.generation.sampler import Sampler, decode, prefill, sampler_settings, stages
from emergent_alignment.generation.text import Batching, sample_answers
from emergent_alignment.models.model import load, random_params
from emergent_alignment.randomness import Draws, Purpose, row_keys

PROMPTS = [[{"role": "user", "content": text}] for text in ("Hi?", "May I?", "And now?", "Why?")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(str(write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")))


@pytest.fixture
def lowered():
    """A list that grows with every program that is lowered."""
    events = []

    def listen(event, duration, **names):
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            events.append(names.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_a_run_that_samples_reviews_and_revises_lowers_nothing_twice(model, lowered, layout):
    """… with other temperatures, truncation, limits, end tokens and seeds, and whatever the
    share of candidates that is flagged."""
    chat = read_chat(model.tokenizer)
    review = ReviewSettings(QUESTIONS["advice"], layout, "both", batch_size=4)
    reviewer = FrozenReviewer(reader_of(model, chat, review))

    def conscience_step(seed, temperature, top_p, limit, ends, threshold):
        rows = [chat.prompt_tokens(prompt) for prompt in PROMPTS]
        sampler = sampler_settings(ends, limit, temperature=temperature, top_p=top_p)
        key = jax.random.key(seed)
        sampled = dict(sample_answers(model, model.params, chat, rows, key, sampler, Batching(4)))
        settings = ConscienceSettings(
            review,
            threshold=threshold,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=limit,
            keep_truncated=True,
        )
        candidates = [sampled[i] for i in range(len(rows))]
        draws = Draws(seed, Purpose.CORRECTIONS)
        return review_and_revise(
            reviewer, settings, PROMPTS, candidates, draws, with_reference=True
        )

    scores = [row.score for row in conscience_step(0, 1.0, 1.0, 8, chat.end_tokens, 1e3)]
    some = float(np.median(scores))
    conscience_step(0, 1.0, 1.0, 8, chat.end_tokens, some)  # now there are pairs, too
    jax.jit(lambda x: x + some)(0.0)
    assert lowered, "the count works, whatever other tests have compiled before"
    lowered.clear()
    outcomes = set()
    for seed, (temperature, top_p) in enumerate([(0.7, 0.9), (0.0, 1.0), (1.3, 0.5), (1.0, 1.0)]):
        for limit, ends, threshold in ((8, (), some), (5, (3, 4), 1e3), (2, chat.end_tokens, some)):
            found = conscience_step(seed, temperature, top_p, limit, ends, threshold)
            outcomes |= {row.outcome for row in found}
    assert len(outcomes) > 1, "some were flagged and some were not"
    assert not lowered


def decoding_inputs(config, slots: int, samples: int = 1):
    params = random_params(config)
    tokens, lengths = np.ones((4, 16), np.int32), np.full(4, 16, np.int32)
    prompts = prefill(config, params, tokens, lengths)
    keys = row_keys(jax.random.key(0), np.arange(4 * samples)).reshape(4, samples)
    settings = sampler_settings((2,), slots, temperature=1.0)
    return params, prompts, Sampler(settings, keys), jnp.ones(4, bool)


def compiled_decode(config, slots=64):
    lowered = decode.lower(config, *decoding_inputs(config, slots), width=slots)
    return lowered.compile(compiler_options=USERS_FUSIONS)


def shapes_of(function, *inputs) -> set[tuple[int, ...]]:
    return set(array_shapes(jax.make_jaxpr(function)(*inputs).jaxpr))


def test_reading_makes_no_logits_and_drawing_those_of_one_token_a_row(model):
    config = model.config
    tokens, lengths = np.ones((4, 16), np.int32), np.full(4, 16, np.int32)
    matrix = (config.vocab_size, config.hidden_size)

    def with_vocabulary(function, *inputs):
        found = {shape for shape in shapes_of(function, *inputs) if config.vocab_size in shape}
        return found - {matrix, matrix[::-1]}

    assert not with_vocabulary(
        lambda params: prefill(config, params, tokens, lengths), random_params(config)
    )
    inputs = decoding_inputs(config, slots=64)
    drawn = with_vocabulary(lambda *inputs: decode(config, *inputs, width=64), *inputs)
    assert drawn and max(map(math.prod, drawn)) == 4 * config.vocab_size


def test_attention_looks_at_the_slots_that_can_be_filled_and_at_one_copy_of_the_prompt(model):
    config, slots, samples = model.config, 100, 3
    inputs = decoding_inputs(config, slots, samples)
    shapes = shapes_of(lambda *inputs: decode(config, *inputs, width=slots), *inputs)
    groups = config.num_heads // config.num_kv_heads
    one_query = (4, samples, config.num_kv_heads, groups, 1)
    keys = {shape[5] for shape in shapes if len(shape) == 6 and shape[:5] == one_query}
    assert keys - {1} == {16, 32, 64, slots}, "the prompt, and the stages of the answer"
    tail = (config.num_kv_heads, config.head_dim)
    held = {shape[1:4] for shape in shapes if len(shape) == 6 and shape[4:] == tail}
    assert {rows for rows in held if rows[2] == 16} == {(4, 1, 16)}


def test_the_unembedding_is_laid_out_once_and_not_for_each_token(model):
    """Transposed, as a product with few rows reads it best."""
    config, slots = model.config, 64
    inputs = decoding_inputs(config, slots)
    jaxpr = jax.make_jaxpr(lambda *inputs: decode(config, *inputs, width=slots))(*inputs).jaxpr
    matrix = (config.hidden_size, config.vocab_size)
    for body in (bodies := loop_bodies(jaxpr)):
        assert matrix in {variable.aval.shape for variable in body.invars}
        assert all(v.aval.shape != matrix for equation in body.eqns for v in equation.outvars)
    assert len(bodies) == len(stages(slots)), "a loop for each stage, and layers are scans"


def test_the_cache_is_written_in_place_and_never_copied(model):
    """Neither the block of new tokens nor the prompt's, inside the loops of the program."""
    config = model.config
    text = compiled_decode(config).as_text()
    tail = f"4,1,{{slots}},{config.num_kv_heads},{config.head_dim}]"
    shapes = [f"f32[{config.num_layers}," + tail.format(slots=slots) for slots in (64, 16)]
    assert all(shape in text for shape in shapes)
    inside = "\n".join(
        body
        for body in re.split(r"\n(?=%|ENTRY)", text)
        if not body.startswith("ENTRY") and " while(" not in body.split("{", 1)[0]
    )
    copies = [
        line.strip()
        for line in inside.splitlines()
        if re.search(r"= (f32\[[\d,]+\])\S* copy\(", line)
        and any(shape in line.split(" copy(")[0] for shape in shapes)
    ]
    assert not copies


def test_programs_are_flat_in_depth(model):
    """Layers are scanned: twice as many make no more instructions."""
    deeper = dataclasses.replace(model.config, num_layers=2 * model.config.num_layers)
    counts = [compiled_decode(config).as_text().count("\n  ") for config in (model.config, deeper)]
    assert counts[1] <= 1.02 * counts[0]
