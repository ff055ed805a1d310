"""What is streamed is what would have been sampled at once, token by token."""

import dataclasses

import jax
import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.conscience.drafting import DraftSettings, ModelDrafter
from emergent_alignment.data.chat import read_chat
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.streaming import _advance, settled_text, stream_answer
from emergent_alignment.generation.text import Batching, sample_answers
from emergent_alignment.models.model import load
from emergent_alignment.randomness import row_keys

TALK = [{"role": "user", "content": "Should I wear a helmet?"}]


@pytest.fixture(scope="module")
def drafter(tmp_path_factory):
    model = load(str(write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")))
    return ModelDrafter(model, read_chat(model.tokenizer))


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_streamed_tokens_are_the_sampled_ones_across_stages(drafter, temperature):
    model, chat = drafter.model, drafter.chat
    row, key = chat.prompt_tokens(TALK), jax.random.key(3)
    settings = sampler_settings((), 36, temperature=temperature)
    ((_, whole),) = sample_answers(model, model.policy, chat, [row], key, settings, Batching(1))
    own = row_keys(key, jax.numpy.zeros(1, int))[0]
    streamed = list(stream_answer(model, model.policy, chat, row, own, settings))
    assert [len(answer.tokens) for answer in streamed] == list(range(1, 37))
    assert streamed[-1].tokens == whole.tokens and streamed[-1].text == whole.text


def test_another_length_seed_or_temperature_compiles_nothing(drafter):
    for seed, limit, temperature in ((0, 60, 0.7), (1, 40, 0.2)):
        drafter.streamed(TALK, DraftSettings(limit, temperature), seed, lambda text: None)
        compiled = _advance._cache_size()
    drafter.streamed(TALK, DraftSettings(50, 1.0), 2, lambda text: None)
    assert _advance._cache_size() == compiled


@pytest.mark.parametrize("seed", range(4))
def test_pieces_that_are_told_add_up_to_the_draft_that_is_written_at_once(drafter, seed):
    told, settings = [], DraftSettings(40, 1.5)
    streamed = drafter.streamed(TALK, settings, seed, told.append)
    (whole,) = drafter.drafts([TALK], settings, seed, [0], lambda done, total: None)
    assert "".join(told) == streamed.answer.text == whole.answer.text
    assert len(told) > 1 and streamed.completion_tokens == whole.completion_tokens


def test_a_stop_ends_a_draft_before_it(drafter):
    (whole,) = drafter.drafts([TALK], DraftSettings(40, 1.5), 0, [0], lambda done, total: None)
    stop = whole.answer.text[5:8]
    settings, told = DraftSettings(40, 1.5, stop=("never said", stop)), []
    (cut,) = drafter.drafts([TALK], settings, 0, [0], lambda done, total: None)
    streamed = drafter.streamed(TALK, settings, 0, told.append)
    expected = whole.answer.text.split(stop)[0].rstrip()
    assert cut.answer.text == streamed.answer.text == expected and cut.answer.ended
    assert cut.answer.tokens == drafter.chat.response_tokens(expected)


def test_half_a_letter_is_not_settled(drafter):
    answer = next(
        stream_answer(
            drafter.model,
            drafter.model.policy,
            drafter.chat,
            [5],
            jax.random.key(0),
            sampler_settings((), 1),
        )
    )
    for text, settled in (("Gr\ufffd", "Gr"), ("Gr ", "Gr"), ("Grü", "Grü")):
        assert settled_text(dataclasses.replace(answer, text=text, ended=False)) == settled
