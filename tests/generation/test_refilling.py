"""A batch that is refilled says what each prompt alone would say, compiles once, and writes its
caches in place."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import USERS_FUSIONS

from emergent_alignment.data.batches import pad_rows
from emergent_alignment.generation import refilling
from emergent_alignment.generation.refilling import BatchShape, sample_refilling
from emergent_alignment.generation.sampler import Sampler, sample, sampler_settings
from emergent_alignment.randomness import row_keys

PROMPT_WIDTH, WIDTH = 6, 8


def random_prompts(count: int, seed: int) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(1, 96, draw.integers(1, PROMPT_WIDTH + 1)).tolist() for _ in range(count)]


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_refilled_rows_equal_rows_that_are_sampled_by_themselves(tiny_config, tiny_params, family):
    """… of several ages side by side, and with a window shorter than the rows."""
    config = tiny_config(family)
    params = tiny_params(config)
    compiled = None
    for seed, limit in ((0, WIDTH), (1, 5)):
        prompts = random_prompts(11, seed)
        keys = row_keys(jax.random.key(seed), np.arange(len(prompts)))
        # A third of the vocabulary ends a row: answers are of all lengths.
        settings = sampler_settings(tuple(range(3, 11)), limit, temperature=3.0)
        tokens, lengths = pad_rows(prompts, PROMPT_WIDTH)
        expected = jax.device_get(
            sample(config, params, tokens, lengths, Sampler(settings, keys), width=WIDTH)
        )
        assert len(set(expected.lengths.tolist())) > 2
        seen = []
        for places, samples in sample_refilling(
            config,
            params,
            prompts,
            Sampler(settings, keys),
            BatchShape(3, PROMPT_WIDTH, WIDTH),
        ):
            seen += places
            for name in ("tokens", "lengths", "ended"):
                found = getattr(samples, name)[:, 0]
                np.testing.assert_array_equal(found, getattr(expected, name)[places])
            np.testing.assert_allclose(
                samples.log_probs[:, 0], expected.log_probs[places], rtol=1e-5, atol=1e-5
            )
        assert sorted(seen) == list(range(len(prompts)))
        count = refilling._advance._cache_size(), refilling._refill._cache_size()
        assert compiled in (None, count), "other prompts, limits and keys compile nothing"
        compiled = count


def test_caches_of_a_refilled_batch_are_written_in_place(tiny_config, tiny_params):
    """No program copies the ring or the prompts' blocks inside its loops, nor at its ends:
    what comes in is donated."""
    config = tiny_config("llama")
    params, slots = tiny_params(config), 40
    keys = row_keys(jax.random.key(0), np.arange(4))
    running = refilling._nothing(config, BatchShape(4, 24, slots), keys[:1], jnp.float32)
    settings = sampler_settings((2,), slots, temperature=1.0)
    lowered = refilling._advance.lower(
        config, params, running, np.int32(1), settings, dtype=jnp.float32
    )
    tail = f",1,{{}},{config.num_kv_heads},{config.head_dim}]"
    shapes = [f"f32[{config.num_layers},4" + tail.format(size) for size in (24, slots)]
    text = lowered.compile(compiler_options=USERS_FUSIONS).as_text()
    assert all(shape in text for shape in shapes)
    copies = [
        line.strip()
        for line in text.splitlines()
        if re.search(r"= \S+ copy\(", line) and any(shape in line for shape in shapes)
    ]
    assert not copies
