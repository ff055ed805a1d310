"""The truths of the sampler, on tiny random models: what a row says depends on the model, its
prompt, its key and the settings, and on nothing else."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from emergent_alignment.data.batches import pad_rows
from emergent_alignment.data.chat import read_chat
from emergent_alignment.generation import sampler
from emergent_alignment.generation.sampler import (
    Sampler,
    choose,
    sample,
    sampler_settings,
    truncate,
)
from emergent_alignment.generation.text import Batching, generate, sample_answers
from emergent_alignment.models.frozen import dequantised, hold_frozen
from emergent_alignment.models.model import Model

PROMPT_WIDTH, WIDTH = 6, 8
LENGTHS = (1, 3, 6, 4)


def random_prompts(lengths=LENGTHS, seed: int = 0) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(1, 96, length).tolist() for length in lengths]


def row_keys(count: int, seed: int = 0) -> jax.Array:
    key = jax.random.key(seed)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(count))


def run(config, params, prompts, *, seed=0, ends=(), limit=WIDTH, keys=None, width=WIDTH, **draws):
    """Samples as numpy arrays, for prompts padded to PROMPT_WIDTH."""
    tokens, lengths = pad_rows(prompts, PROMPT_WIDTH)
    keys = row_keys(len(prompts), seed) if keys is None else keys
    sampler = Sampler(sampler_settings(ends, limit, **draws), keys)
    return jax.device_get(sample(config, params, tokens, lengths, sampler, width=width))


@pytest.fixture(scope="module")
def llama(tiny_config, tiny_params):
    """(config, params) of the model that most tests here share, so that it is compiled once."""
    config = tiny_config("llama")
    return config, tiny_params(config)


# ------------------------------------------------------------------------ against the full forward


@pytest.mark.parametrize(
    ("family", "held"),
    [*((family, "") for family in ("llama", "mistral", "qwen2", "qwen3")), ("qwen2", "nf4")],
)
def test_cached_greedy_decoding_equals_the_full_forward_token_by_token(
    tiny_config, tiny_params, family, held
):
    """… for prompts of several lengths in one batch; with a window shorter than the rows; with
    kernels in 4 bits as with the floats that they stand for."""
    config, prompts = tiny_config(family), random_prompts()
    params = hold_frozen(tiny_params(config), held)
    samples = run(config, params, prompts, temperature=0.0)
    params = dequantised(params)
    assert samples.lengths.tolist() == [WIDTH] * len(prompts)
    for row, prompt in enumerate(prompts):
        answer = samples.tokens[row]
        log_probs = reference_decoder.log_probs(config, params, [*prompt, *answer])
        predictions = log_probs[len(prompt) - 1 : -1]
        assert answer.tolist() == predictions.argmax(-1).tolist(), f"row {row}"
        expected = predictions[np.arange(WIDTH), answer]
        np.testing.assert_allclose(samples.log_probs[row], expected, rtol=1e-5, atol=1e-5)


def test_decoding_goes_on_unchanged_where_attention_looks_at_more_slots(llama):
    """Past 32 and 64 slots, in rows that get there at different positions."""
    config, params = llama
    assert sampler.stages(68) == [32, 64, 68]
    prompts = random_prompts((1, 6), seed=5)
    samples = run(config, params, prompts, temperature=0.0, limit=68, width=68)
    for row, prompt in enumerate(prompts):
        answer = samples.tokens[row]
        log_probs = reference_decoder.log_probs(config, params, [*prompt, *answer])
        predictions = log_probs[len(prompt) - 1 : -1]
        expected = predictions[np.arange(68), answer]
        # A tie may fall either way in float32, and what follows it is then another text.
        np.testing.assert_allclose(predictions.max(-1), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(samples.log_probs[row], expected, rtol=1e-5, atol=1e-5)


def test_several_samples_of_a_prompt_are_those_of_rows_that_repeat_it(llama):
    prompts, keys = random_prompts((3, 6), seed=6), row_keys(6)
    shared = run(*llama, prompts, keys=keys.reshape(2, 3), ends=(5, 6, 7))
    repeated = run(*llama, [p for p in prompts for _ in range(3)], keys=keys, ends=(5, 6, 7))
    for name in ("tokens", "lengths", "ended"):
        found = getattr(shared, name)
        np.testing.assert_array_equal(found.reshape(6, *found.shape[2:]), getattr(repeated, name))
    assert shared.tokens.shape == (2, 3, WIDTH)
    np.testing.assert_allclose(
        shared.log_probs.reshape(6, -1), repeated.log_probs, rtol=1e-5, atol=1e-5
    )


def test_log_probs_are_those_of_the_raw_model_whatever_the_temperature_and_truncation(llama):
    config, params = llama
    prompts = random_prompts(seed=1)
    samples = run(config, params, prompts, temperature=1.7, top_p=0.9, top_k=30)
    assert len(np.unique(samples.tokens)) > 8, "not greedy"
    for row, prompt in enumerate(prompts):
        answer = samples.tokens[row]
        log_probs = reference_decoder.log_probs(config, params, [*prompt, *answer])
        expected = log_probs[np.arange(WIDTH) + len(prompt) - 1, answer]
        np.testing.assert_allclose(samples.log_probs[row], expected, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------ compilation


def test_nothing_recompiles_for_other_settings_keys_or_prompts(llama):
    config, params = llama
    run(config, params, random_prompts())
    compiled = sample._cache_size()
    for temperature, top_p, top_k, ends, limit, seed in itertools.product(
        (0.0, 0.7), (1.0, 0.5), (0, 7), ((), (3, 4)), (1, WIDTH), (0, 1)
    ):
        run(
            config,
            params,
            random_prompts(LENGTHS[::-1], seed),
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            ends=ends,
            limit=limit,
            seed=seed,
        )
    assert sample._cache_size() == compiled


@pytest.fixture
def run_counted(llama, monkeypatch):
    """`run` on the tiny llama that returns (how often the loop drew a token, samples)."""
    draws = []

    def counted(*inputs):
        jax.debug.callback(lambda: draws.append(1))
        return choose(*inputs)

    def counting_run(*arguments, **options):
        draws.clear()
        # Another width than anywhere else, so that the counting program is used nowhere else.
        samples = run(*llama, *arguments, width=WIDTH + 3, **options)
        jax.effects_barrier()
        return len(draws), samples

    monkeypatch.setattr(sampler, "choose", counted)
    return counting_run


def test_the_loop_ends_with_the_last_row_and_padding_rows_do_not_hold_it_up(llama, run_counted):
    prompts = random_prompts()
    free = run(*llama, prompts, seed=2)
    firsts = tuple(np.unique(free.tokens[:, 0]).tolist())

    draws, _ = run_counted(prompts, seed=2, limit=5)
    assert draws == 5
    draws, samples = run_counted(prompts, seed=2, ends=firsts)
    assert draws == 1 and samples.lengths.tolist() == [1] * 4 and samples.ended.all()
    draws, samples = run_counted([prompts[0], [], [], []], seed=2, ends=firsts)
    assert draws == 1 and samples.lengths.tolist() == [1, 0, 0, 0]
    assert not samples.tokens[1:].any() and not samples.log_probs[1:].any()
    draws, _ = run_counted([[], [], [], []], seed=2)
    assert draws == 1, "a batch of padding alone"


# ------------------------------------------------------------------------ ends and limits


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), temperature=st.sampled_from([0.0, 1.0]), data=st.data())
def test_a_row_stops_at_its_first_end_token_and_is_otherwise_unchanged(
    llama, seed, temperature, data
):
    """Compared with the same rows sampled without end tokens and cut by hand."""
    config, params = llama
    prompts = random_prompts(seed=seed)
    free = run(config, params, prompts, seed=seed, temperature=temperature)
    ends = tuple(data.draw(st.sets(st.sampled_from(free.tokens.ravel().tolist()), max_size=8)))
    limit = data.draw(st.integers(1, WIDTH))
    samples = run(
        config, params, prompts, seed=seed, temperature=temperature, ends=ends, limit=limit
    )
    for row, tokens in enumerate(free.tokens):
        stops = [at for at in range(limit) if tokens[at] in ends]
        length = stops[0] + 1 if stops else limit
        assert samples.lengths[row] == length
        assert samples.ended[row] == bool(stops)
        assert samples.tokens[row, :length].tolist() == tokens[:length].tolist()
        np.testing.assert_array_equal(samples.log_probs[row, :length], free.log_probs[row, :length])
        assert not samples.tokens[row, length:].any()
        assert not samples.log_probs[row, length:].any()


def test_a_limit_beyond_the_compiled_width_is_the_width(llama):
    samples = run(*llama, random_prompts(), limit=1000)
    assert samples.lengths.tolist() == [WIDTH] * 4 and not samples.ended.any()


def test_settings_outside_their_range_are_refused():
    for wrong in (
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"max_new_tokens": 0},
        {"end_tokens": tuple(range(9))},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong)).replace("_tokens", ".tokens")):
            sampler_settings(**({"end_tokens": (1,), "max_new_tokens": 4} | wrong))


# ------------------------------------------------------------------------ seeds and neighbours


def test_the_same_seed_gives_the_same_sample_and_another_seed_another(llama):
    prompts = [random_prompts()[2]] * 4
    first, again, other = (run(*llama, prompts, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert (first.tokens != other.tokens).any(axis=1).all()
    assert len({tuple(row) for row in first.tokens.tolist()}) == 4, "rows draw from their own keys"


def test_seeds_do_not_matter_to_greedy_decoding(llama):
    runs = [run(*llama, random_prompts(), seed=seed, temperature=0.0).tokens for seed in (0, 1)]
    np.testing.assert_array_equal(*runs)


def test_a_sample_does_not_depend_on_its_neighbours(llama):
    prompts, keys = random_prompts(), row_keys(4)
    whole = run(*llama, prompts, keys=keys)
    turned = run(*llama, prompts[::-1], keys=keys[::-1])
    np.testing.assert_array_equal(turned.tokens[::-1], whole.tokens)
    lone = run(*llama, [prompts[0], [], [], prompts[3]], keys=keys)
    np.testing.assert_array_equal(lone.tokens[[0, 3]], whole.tokens[[0, 3]])


@dataclasses.dataclass(frozen=True)
class PlainChat:
    """Stands for a chat template where only tokens matter."""

    def decode(self, tokens: list[int]) -> str:
        return " ".join(map(str, tokens))


def test_an_answer_does_not_depend_on_batch_size_bucket_or_order(llama):
    """Across bucket boundaries: prompts of 1 to 9 tokens in buckets of 4 or of 16."""
    config, params = llama
    model = Model(config, None, params)
    prompts = random_prompts((9, 1, 4, 5, 8, 3, 2), seed=3)
    drawn = sampler_settings((5, 6, 7), 7)
    key = jax.random.key(4)

    def answers(**sizes):
        found = dict(
            sample_answers(model, params, PlainChat(), prompts, key, drawn, Batching(**sizes))
        )
        assert sorted(found) == list(range(len(prompts)))
        return [found[index] for index in range(len(prompts))]

    expected = answers(size=7, width_step=16)
    for sizes in ({"size": 2, "width_step": 16}, {"size": 3, "width_step": 4}):
        for ours, theirs in zip(answers(**sizes), expected, strict=True):
            assert (ours.tokens, ours.ended) == (theirs.tokens, theirs.ended)
            np.testing.assert_allclose(ours.log_probs, theirs.log_probs, rtol=1e-5, atol=1e-5)
            assert len(ours.log_probs) == len(ours.tokens)


# ------------------------------------------------------------------------ distributions


def numpy_truncate(probs: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """Top-k, then top-p, by sorting; whatever ties with the last token kept is kept."""
    result = np.zeros_like(probs)
    for row, values in enumerate(probs):
        ranked = np.sort(values)[::-1]
        cut = ranked[min(top_k or len(ranked), len(ranked)) - 1]
        kept = np.where(values >= cut, values, 0.0)
        if top_p < 1:
            ranked = np.sort(kept)[::-1]
            reached = np.cumsum(ranked) >= top_p * ranked.sum()
            kept = np.where(kept >= ranked[reached.argmax()], kept, 0.0)
        result[row] = kept
    return result


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**31),
    largest=st.sampled_from([1, 3, 64]),
    top_k=st.sampled_from([0, 1, 2, 5, 39, 40, 41, 1000]),
    top_p=st.integers(1, 64),
)
def test_truncation_is_what_sorting_gives_ties_included(seed, largest, top_k, top_p):
    """Multiples of 1/64 add up without rounding, so that the cut has a single right place."""
    draw = np.random.default_rng(seed)
    probs = draw.integers(0, largest + 1, (3, 40)).astype(np.float32) / 64
    drawn = sampler_settings((), 1, top_k=top_k, top_p=top_p / 64)
    expected = numpy_truncate(probs, top_k, top_p / 64)
    np.testing.assert_array_equal(jax.jit(truncate)(probs, drawn), expected)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.5, 20, 1.0), (1.0, 0, 0.8), (2.0, 300, 0.9)],
)
def test_tokens_come_as_often_as_their_probabilities_say(temperature, top_k, top_p):
    """χ² over 8,000 draws from 600 tokens, which is more than one block of the two-step draw."""
    count = 8000
    logits = np.random.default_rng(0).permutation(-1.3 * np.log(np.arange(1, 601)))
    probs = np.exp(logits / temperature)
    expected = numpy_truncate((probs / probs.sum())[None], top_k, top_p)[0]
    expected *= count / expected.sum()
    rows = jnp.broadcast_to(jnp.array(logits, jnp.float32), (count, 600))
    drawn = sampler_settings((), 1, temperature=temperature, top_k=top_k, top_p=top_p)
    tokens = jax.jit(choose)(rows, jax.random.split(jax.random.key(5), count), drawn)
    observed = np.bincount(tokens, minlength=600)
    assert not observed[expected == 0].any(), "a token that was cut off"
    often = expected >= 10
    bins = [*zip(observed[often], expected[often])]
    if (~often).any() and expected[~often].sum() > 0:
        bins.append((observed[~often].sum(), expected[~often].sum()))
    chi_square = sum((seen - wanted) ** 2 / wanted for seen, wanted in bins)
    freedom = len(bins) - 1
    assert abs(chi_square - freedom) < 3.5 * (2 * freedom) ** 0.5, (chi_square, freedom)


def test_temperature_next_to_zero_is_greedy():
    logits = jnp.array(np.random.default_rng(1).standard_normal((50, 600)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 50)
    tokens = choose(logits, keys, sampler_settings((), 1, temperature=1e-6))
    assert tokens.tolist() == logits.argmax(-1).tolist()


# ------------------------------------------------------------------------ generate

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def chat_model(llama) -> Model:
    """The tiny llama with a tokenizer of whole words w0, w1, …"""
    special = ["<|end|>", "<|user|>", "<|assistant|>"]
    words = special + [f"w{number}" for number in range(96 - len(special))]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.chat_template = TEMPLATE
    config, params = llama
    return Model(config, tokenizer, params)


def conversations(count: int) -> list[list[dict[str, str]]]:
    draw = np.random.default_rng(7)
    texts = [" ".join(f"w{word}" for word in draw.integers(0, 93, 1 + n)) for n in range(count)]
    return [[{"role": "user", "content": text}] for text in texts[::-1]]


def test_generate_answers_each_conversation_in_its_place(chat_model):
    asked = conversations(5)
    chat = read_chat(chat_model.tokenizer)
    texts = generate(chat_model, asked, max_new_tokens=6, temperature=0.0)
    for conversation, text in zip(asked, texts, strict=True):
        tokens = chat.prompt_tokens(conversation)
        for _ in range(6):
            logits = reference_decoder.logits(chat_model.config, chat_model.params, tokens)
            tokens.append(int(logits[-1].argmax()))
            if tokens[-1] in chat.end_tokens:
                break
        answer = tokens[len(chat.prompt_tokens(conversation)) :]
        assert text == chat.decode(answer)


def test_generate_depends_on_the_seed_and_not_on_the_batch_size(chat_model):
    asked = conversations(5)
    first = generate(chat_model, asked, max_new_tokens=6, seed=1)
    assert generate(chat_model, asked, max_new_tokens=6, seed=1, batch_size=2) == first
    assert generate(chat_model, asked, max_new_tokens=6, seed=2) != first


def test_generate_with_no_conversation_gives_no_answer(chat_model):
    assert generate(chat_model, []) == []
