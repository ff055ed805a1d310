"""An answer that leaves another one: its first token is any other, drawn as the sampler draws."""

import jax
import numpy as np
import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.data.chat import read_chat
from emergent_alignment.generation.leaving import leaving_tokens
from emergent_alignment.generation.prefill import prefill
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Batching
from emergent_alignment.losses import vocabulary_logits
from emergent_alignment.models.forward import unembedding
from emergent_alignment.models.model import load


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(str(write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")))


@pytest.fixture(scope="module")
def chat(model):
    return read_chat(model.tokenizer)


def test_it_is_drawn_from_what_the_model_gives_all_others(model, chat):
    prompt = chat.prompt_tokens([{"role": "user", "content": "May I skip it today?"}])
    tokens, length = np.array([prompt], np.int32), np.array([len(prompt)], np.int32)
    read = prefill(model.config, model.params, tokens, length)
    matrix = unembedding(model.params, np.float32)
    logits = np.asarray(vocabulary_logits(read.last, matrix, model.config.logits_cap))[0]
    log_probs = logits - np.logaddexp.reduce(logits)
    likeliest, ends = int(log_probs.argmax()), (3,)
    number = 4000
    settings = sampler_settings(ends, 1)
    drawn = leaving_tokens(
        model,
        model.params,
        chat,
        [prompt] * number,
        [likeliest] * number,
        jax.random.key(1),
        settings,
        Batching(number),
    )
    places = [answer.tokens[0] for answer in drawn]
    assert not {likeliest, *ends} & set(places) and not any(answer.ended for answer in drawn)
    shares = np.bincount(places, minlength=len(logits)) / number
    expected = np.exp(log_probs)
    expected[[likeliest, *ends]] = 0
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)
    raw = [answer.log_probs[0] for answer in drawn]
    np.testing.assert_allclose(raw, log_probs[places], atol=1e-5)


def test_a_prompt_draws_by_its_id_whatever_is_beside_it(model, chat):
    prompts = [chat.prompt_tokens([{"role": "user", "content": text}]) for text in ("Hi?", "Why?")]
    given = model, model.params, chat
    settings, key = sampler_settings((), 1), jax.random.key(2)
    together = leaving_tokens(*given, prompts, [5, 6], key, settings, Batching(4))
    by_itself = Batching(1, ids=np.array([1]))
    alone = leaving_tokens(*given, prompts[1:], [6], key, settings, by_itself)
    assert together[1].tokens == alone[0].tokens
