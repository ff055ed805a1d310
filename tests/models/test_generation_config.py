"""What a checkpoint says of generating reaches the sampler, and the checkpoint written from it."""

import json

import jax
import pytest
from tiny_models import byte_tokenizer_metadata, byte_vocabulary

from emergent_alignment.data.chat import read_chat
from emergent_alignment.errors import UserError
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import sample_answers
from emergent_alignment.models.loading import end_token_ids
from emergent_alignment.models.model import export, load

PLACES = {
    "a list in generation_config.json": ({"eos_token_id": [264, 262]}, {}, {262, 264}),
    "one in generation_config.json": ({"eos_token_id": 262}, {}, {262, 264}),
    "a list in config.json": ({"eos_token_id": None}, {"eos_token_id": [263, 264]}, {263, 264}),
    "nothing": ({"eos_token_id": None}, {"eos_token_id": None}, {264}),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_stated_end_token_ends_an_answer(model_directory, edit_json, place):
    generation, config, ends = PLACES[place]
    directory, _ = model_directory()
    edit_json(directory / "generation_config.json", **generation)
    edit_json(directory / "config.json", **({"eos_token_id": 264} | config))
    tokenizer = load(str(directory)).tokenizer
    assert set(read_chat(tokenizer).end_tokens) == ends
    assert set(end_token_ids(directory, tokenizer)) == ends


def test_sampling_stops_at_each_and_none_is_in_the_answer(model_directory, edit_json):
    directory, _ = model_directory()
    whole, unstated = None, load(str(directory))
    key, prompt = jax.random.key(0), [5, 6, 7]

    def answer(model):
        chat = read_chat(model.tokenizer)
        settings = sampler_settings(chat.end_tokens, 6, temperature=0.0)
        return next(sample_answers(model, model.policy, chat, [prompt], key, settings))[1]

    whole = answer(unstated)
    last = next(token for token in whole.tokens[1:] if token not in (whole.tokens[0], 264))
    edit_json(directory / "generation_config.json", eos_token_id=[264, last])
    ended = answer(load(str(directory)))
    cut = whole.tokens.index(last) + 1
    assert ended.ended and ended.tokens == whole.tokens[:cut]
    assert ended.text == unstated.tokenizer.decode(whole.tokens[: cut - 1]).strip()


@pytest.mark.parametrize("stated", [264, [264, 262], [262]])
def test_an_export_keeps_all_that_the_file_says(model_directory, edit_json, tmp_path, stated):
    directory, _ = model_directory()
    more = {"temperature": 0.6, "top_p": 0.9, "do_sample": True, "bos_token_id": 263}
    edit_json(directory / "generation_config.json", eos_token_id=stated, **more)
    before = read_chat(load(str(directory)).tokenizer).end_tokens
    for name in ("once", "twice"):
        directory = export(load(str(directory)), tmp_path / name)
        content = json.loads((directory / "generation_config.json").read_text())
        assert {field: content[field] for field in more} == more
        assert read_chat(load(str(directory)).tokenizer).end_tokens == before
        ends = json.loads((directory / "config.json").read_text())["eos_token_id"]
        assert ends == content["eos_token_id"]


@pytest.mark.parametrize("wrong", ["262", -1, True, 2.0, [264, None], {"a": 1}, [[262]]])
def test_an_end_token_that_is_no_id_is_named(model_directory, edit_json, wrong):
    directory, _ = model_directory()
    edit_json(directory / "generation_config.json", eos_token_id=wrong)
    with pytest.raises(UserError, match="generation_config.json: eos_token_id holds"):
        load(str(directory))


def test_a_stop_string_is_an_end_token_or_named(model_directory, edit_json):
    directory, _ = model_directory()
    token = load(str(directory)).tokenizer.convert_ids_to_tokens(263)
    for stated in (token, [token]):
        edit_json(directory / "generation_config.json", stop_strings=stated)
        assert {263, 264} <= set(read_chat(load(str(directory)).tokenizer).end_tokens)
    for wrong in (["no such token"], [[1]]):
        edit_json(directory / "generation_config.json", stop_strings=wrong)
        with pytest.raises(UserError, match="generation_config.json: stop_strings holds"):
            read_chat(load(str(directory)).tokenizer)


def test_more_end_tokens_than_can_be_waited_for_are_said_where_they_are_read(
    model_directory, edit_json
):
    directory, _ = model_directory()
    edit_json(directory / "generation_config.json", eos_token_id=list(range(8)))
    with pytest.raises(UserError, match="9 tokens end an answer, and at most 8"):
        read_chat(load(str(directory)).tokenizer)


@pytest.mark.parametrize("key", ["eos_token_id", "eot_token_id", "eom_token_id"])
def test_a_gguf_files_end_tokens_are_those_stated(gguf_file, tmp_path, key):
    path, _ = gguf_file(tokenizer=byte_tokenizer_metadata() | {key: 5})
    model = load(str(path))
    ends = {264, 262, 5} if key != "eos_token_id" else {5, 264, 262}
    assert set(read_chat(model.tokenizer).end_tokens) == ends
    written = load(str(export(model, tmp_path / "exported")))
    assert set(read_chat(written.tokenizer).end_tokens) == ends


@pytest.mark.parametrize("kind", [1, 3, 4])
def test_a_gguf_files_end_tokens_are_those_named_so_whatever_kind_they_have(gguf_file, kind):
    tokens, _ = byte_vocabulary()
    more = ["<|eot_id|>", "<end_of_turn>", "</s>", "<|other|>"]
    metadata = byte_tokenizer_metadata() | {
        "tokens": tokens + more,
        "token_type": [1] * (len(tokens) - 3) + [3] * 3 + [kind] * 4,
    }
    tokenizer = load(str(gguf_file(tokenizer=metadata)[0])).tokenizer
    chat = read_chat(tokenizer)
    assert chat.end_tokens == (262, 264, 265, 266, 267)
    assert tokenizer("<|eot_id|></s>").input_ids == [265, 267]
    assert chat.decode([*tokenizer("hello").input_ids, 265, 266, 267]) == "hello"


def test_decoded_text_is_never_cleaned_up(model_directory):
    """transformers 5.0 to 5.3 take the blanks out where the tokenizer's file asks for it."""
    directory, _ = model_directory()
    tokenizer = load(str(directory)).tokenizer
    tokenizer.clean_up_tokenization_spaces = True
    text = "do n't , he 's . Well ? 'm"
    chat = read_chat(tokenizer)
    given = {}
    plain = tokenizer.decode

    def decode(tokens, **options):
        given.update(options)
        return plain(tokens, **options)

    tokenizer.decode = decode
    assert chat.decode(tokenizer(text).input_ids) == text
    assert given["clean_up_tokenization_spaces"] is False
