"""What a run draws, it draws from a key of its own: the keys that are really drawn from, caught."""

import jax
import numpy as np
import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.conscience import reader as reader_module
from emergent_alignment.generation import text
from emergent_alignment.training import state

pytestmark = pytest.mark.long

STEPS, ROWS = 4, 4


def words_of(keys) -> list[tuple[int, ...]]:
    return [tuple(row) for row in np.asarray(jax.random.key_data(keys)).reshape(-1, 2).tolist()]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Keys by who drew from them, in a run that reviews its targets (by both links of the chain)
    and the policy's candidates."""
    folder = tmp_path_factory.mktemp("drawn")
    config = default_config()
    config.model.path = str(write_tiny_chat_model(folder / "model"))
    config.data.limit = 10
    config.data.buckets = 1
    config.data.max_prompt_tokens = config.data.max_response_tokens = 48
    config.conscience.candidate = "both"
    config.conscience.gate = "relative"
    config.conscience.chain = ("rewrite", "fresh")
    config.conscience.batch_size = 4
    config.conscience.max_review_tokens = 160
    config.conscience.cache = str(folder / "reviewed")
    config.sampling.max_new_tokens = 8
    config.training.steps = STEPS
    config.training.batch_size = ROWS
    keys = {"candidates": [], "corrections": [], "adapters": []}
    decode, sample, init_adapters = reader_module.decode, text.sample, state.init_adapters

    def decoded(config, params, held, sampler, live, **options):
        keys["corrections"] += words_of(sampler.keys[np.asarray(live)])
        return decode(config, params, held, sampler, live, **options)

    def sampled(config, params, tokens, lengths, sampler, **options):
        keys["candidates"] += words_of(sampler.keys)
        return sample(config, params, tokens, lengths, sampler, **options)

    def initial(params, lora, key, *rest):
        jax.debug.callback(lambda found: keys["adapters"].append(found), key)
        return init_adapters(params, lora, key, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reader_module, "decode", decoded)
        patched.setattr(text, "sample", sampled)
        patched.setattr(state, "init_adapters", initial)
        finetune(typed(config), folder / "run")
    return keys


def test_no_key_is_drawn_from_twice(drawn):
    candidates, corrections = drawn["candidates"], drawn["corrections"]
    assert len(candidates) == STEPS * ROWS and len(corrections) > 2 * STEPS
    assert len({*candidates, *corrections}) == len(candidates) + len(corrections)


def test_no_candidate_draws_from_what_an_adapter_draws_from(drawn):
    """… nor from a key that is folded from one of an adapter's."""
    (key,) = drawn["adapters"]
    of_projections = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(7))
    folded = jax.vmap(lambda own: jax.vmap(jax.random.fold_in, (None, 0))(own, np.arange(64)))
    below = {*words_of(of_projections), *words_of(folded(of_projections))}
    assert not below & {*drawn["candidates"], *drawn["corrections"]}
