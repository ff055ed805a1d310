"""Tokenizers from GGUF metadata and directories (tests/parity compares with transformers)."""

import itertools
import json
import os

import numpy as np
import pytest
from tiny_models import TEMPLATE, byte_tokenizer_metadata
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from emergent_alignment.errors import UserError
from emergent_alignment.models.gguf_tokenizer import PRE_TOKENIZERS
from emergent_alignment.models.loading import read_model
from emergent_alignment.models.tokenizer import load_tokenizer, require_chat_template

TEXTS = ["hello world", "\n 12 he", "  né 😀\t", "<|im_start|>he<|im_end|>\n", "日本 2024"]


def pieces(tokenizer, text):
    """The tokens of a text, as the vocabulary spells them."""
    return tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)


@pytest.mark.parametrize("pre", [*PRE_TOKENIZERS, None])
def test_every_pre_tokenizer_keeps_the_text(gguf_file, pre):
    path, _ = gguf_file(tokenizer=byte_tokenizer_metadata(pre))
    tokenizer = load_tokenizer(path)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_merges_apply_within_words(gguf_file):
    path, _ = gguf_file()
    assert pieces(load_tokenizer(path), "hello world") == ["hell", "o", "Ġw", "or", "l", "d"]


def test_smollm_takes_digits_out_before_words(gguf_file):
    # "\n 1": with the digit gone, "\n " stays together and merges; GPT-2 splits "\n" from " 1".
    smollm, _ = gguf_file(tokenizer=byte_tokenizer_metadata("smollm"))
    assert pieces(load_tokenizer(smollm), "\n 12") == ["ĊĠ", "1", "2"]
    gpt2, _ = gguf_file(tokenizer=byte_tokenizer_metadata("gpt-2"), name="gpt2.gguf")
    assert pieces(load_tokenizer(gpt2), "\n 12") == ["Ċ", "Ġ", "1", "2"]


def test_qwen2_normalises_and_llama3_takes_whole_words(gguf_file):
    metadata = byte_tokenizer_metadata("qwen2")
    qwen2 = load_tokenizer(gguf_file(tokenizer=metadata)[0])
    assert pieces(qwen2, "e\u0301") == pieces(qwen2, "é") == ["Ã", "©"]
    metadata = byte_tokenizer_metadata("llama-bpe")
    metadata["tokens"] = [*metadata["tokens"][:-3], "world", *metadata["tokens"][-3:]]
    metadata["token_type"] = [1, *metadata["token_type"]]
    metadata |= {"eos_token_id": 265, "padding_token_id": 263}
    llama3 = load_tokenizer(gguf_file(tokenizer=metadata, name="llama3.gguf")[0])
    assert pieces(llama3, "world") == ["world"]


def test_special_tokens_are_whole_named_and_skipped(gguf_file):
    path, _ = gguf_file()
    tokenizer = load_tokenizer(path)
    ids = tokenizer("<|im_start|>he<|im_end|>").input_ids
    assert ids == [263, 256, 264]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "he"
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (264, 262)
    assert (tokenizer.bos_token_id, tokenizer.unk_token_id) == (None, None)
    assert tokenizer.model_max_length == 128


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, [256]),
        ({"add_bos_token": True}, [256]),  # no begin token is named
        ({"add_bos_token": True, "bos_token_id": 263}, [263, 256]),
        ({"add_bos_token": True, "bos_token_id": 263, "add_eos_token": True}, [263, 256, 264]),
        ({"bos_token_id": 263}, [256]),
        ({"pre": "llama-bpe", "bos_token_id": 263}, [263, 256]),
        ({"pre": "tekken", "bos_token_id": 263}, [263, 256]),
        ({"pre": "dbrx", "bos_token_id": 263}, [256]),
        ({"pre": "llama-bpe", "bos_token_id": 263, "add_bos_token": False}, [256]),
    ],
)
def test_begin_and_end_tokens_follow_the_flags(gguf_file, flags, expected):
    path, _ = gguf_file(tokenizer=byte_tokenizer_metadata() | flags)
    tokenizer = load_tokenizer(path)
    assert tokenizer("he").input_ids == expected
    assert tokenizer("he", add_special_tokens=False).input_ids == [256]


SENTENCEPIECE = {
    "model": "llama",
    "tokens": (
        ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        + ["▁", "h", "i", "t", "e", "r", "he", "▁t", "re", "▁the", "▁there", "er"]
    ),
    "token_type": [2, 3, 3] + [6] * 256 + [1] * 12,
    "scores": [0.0] * 259 + [-9.0] * 6 + [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "unknown_token_id": 0,
}


def joined_by_score(text):
    """SentencePiece's rule, the long way: join the neighbours whose token has the best score."""
    scores = dict(zip(SENTENCEPIECE["tokens"], SENTENCEPIECE["scores"], strict=True))
    parts = list("▁" + text.replace(" ", "▁"))
    while True:
        joins = [
            (scores[left + right], -place)
            for place, (left, right) in enumerate(itertools.pairwise(parts))
            if left + right in scores
        ]
        if not joins:
            return parts
        place = -max(joins)[1]
        parts[place : place + 2] = ["".join(parts[place : place + 2])]


def test_sentencepiece_joins_the_best_scored_pair(gguf_file):
    tokenizer = load_tokenizer(gguf_file(tokenizer=SENTENCEPIECE)[0])
    random = np.random.default_rng(0)
    for length in range(1, 60):
        text = "".join(random.choice(list("thei r"), size=length))
        assert pieces(tokenizer, text)[1:] == joined_by_score(text)


def test_sentencepiece_falls_back_to_bytes(gguf_file):
    tokenizer = load_tokenizer(gguf_file(tokenizer=SENTENCEPIECE)[0])
    assert pieces(tokenizer, "hé") == ["<s>", "▁", "h", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer("there hé  i").input_ids[1:]) == "there hé  i"
    assert tokenizer("he</s>he", add_special_tokens=False).input_ids[2] == 2


def test_sentencepiece_without_a_prefix_space(gguf_file):
    path, _ = gguf_file(tokenizer=SENTENCEPIECE | {"add_space_prefix": False})
    tokenizer = load_tokenizer(path)
    assert pieces(tokenizer, "there") == ["<s>", "t", "he", "re"]
    assert tokenizer.decode(tokenizer(" there").input_ids[1:]) == " there"


def test_runs_of_spaces_and_lines_that_gemma_s_file_names_are_whole(gguf_file):
    """They are marked as user-defined and come with the worst score there is."""
    runs = ["  ", "   ", "\n\n"]
    gemma = SENTENCEPIECE | {"add_space_prefix": False, "add_bos_token": True}
    gemma["tokens"] = gemma["tokens"] + runs
    gemma["scores"] = gemma["scores"] + [-1000.0] * 3
    gemma["token_type"] = gemma["token_type"] + [4] * 3
    tokenizer = load_tokenizer(gguf_file(tokenizer=gemma)[0])
    text = "the   re\n\n\n the"
    wanted = ["<s>", "t", "he", "   ", "re", "\n\n", "<0x0A>", "▁the"]
    assert pieces(tokenizer, text) == wanted
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"pre": "poro"},
            "pre-tokenizer is 'poro'; supported are smollm, refact, qwen2, llama-bpe",
        ),
        ({"model": "bert"}, "its tokenizer is 'bert'; supported are gpt2 and llama"),
        ({"model": "llama"}, "its tokens have no scores"),
        ({"tokens": None}, "no vocabulary"),
        ({"merges": None}, "no merges"),
        ({"merges": ["h e", "h q"]}, r"merge 1 \('h q'\)"),
        ({"eos_token_id": 400}, "eos_token_id is 400, but there are 265 tokens"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(gguf_file, changes, said):
    path, _ = gguf_file(tokenizer=byte_tokenizer_metadata() | changes)
    with pytest.raises(UserError, match=said) as caught:
        load_tokenizer(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_more_tokens_than_embeddings_are_refused(gguf_file):
    embedding = np.zeros((264, 24), np.float32)
    path, _ = gguf_file(tensors={"token_embd.weight": embedding, "output.weight": embedding})
    with pytest.raises(UserError, match="ids up to 264, but the embedding has only 264 rows"):
        read_model(path, dtype=np.float32)


def test_a_chat_template_comes_from_the_file_or_the_user(gguf_file, tmp_path):
    path, _ = gguf_file()
    assert load_tokenizer(path).chat_template == TEMPLATE
    assert load_tokenizer(path, chat_template="{{ messages }}").chat_template == "{{ messages }}"
    (tmp_path / "own.jinja").write_text("{% if true %}é{% endif %}", encoding="utf-8")
    own = load_tokenizer(path, chat_template=tmp_path / "own.jinja")
    assert own.chat_template == "{% if true %}é{% endif %}"
    with pytest.raises(UserError, match="chat_template nowhere.jinja: cannot be read"):
        load_tokenizer(path, chat_template="nowhere.jinja")


def test_a_missing_chat_template_matters_only_where_it_is_needed(gguf_file):
    path, _ = gguf_file(tokenizer=byte_tokenizer_metadata(template=None))
    tokenizer = load_tokenizer(path)
    with pytest.raises(UserError, match="no chat template.*set chat_template to such a file"):
        require_chat_template(tokenizer, path)
    require_chat_template(load_tokenizer(path, chat_template="{{ messages }}"), path)


def test_the_rules_in_tokenizer_json_hold_whatever_the_family(
    model_directory, edit_json, tokenizer
):
    directory, _ = model_directory()
    edit_json(directory / "config.json", model_type="qwen2")
    assert (
        load_tokenizer(directory)("\n he e\u0301").input_ids == tokenizer("\n he e\u0301").input_ids
    )


@pytest.mark.parametrize("text", ["", "{", "{}", '{"version": "1.0", "model": {"type": "none"}}'])
def test_a_broken_tokenizer_file_is_named(model_directory, text):
    directory, _ = model_directory()
    (directory / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match="the tokenizer cannot be loaded") as caught:
        load_tokenizer(directory)
    assert "\n" not in str(caught.value)


def test_a_directory_without_a_tokenizer_is_named(model_directory):
    directory, _ = model_directory()
    for path in directory.glob("*token*"):
        path.unlink()
    with pytest.raises(UserError, match="no tokenizer files"):
        load_tokenizer(directory)


def test_code_beside_a_tokenizer_is_not_run(model_directory):
    directory, _ = model_directory()
    ran = directory / "ran"
    (directory / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((directory / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    load_tokenizer(directory)
    assert not ran.exists()


@pytest.mark.parametrize("package", ["sentencepiece", "tiktoken", "protobuf"])
def test_a_package_that_older_files_need_is_named(tmp_path, monkeypatch, package):
    """Without tokenizer.json transformers makes a fast tokenizer of what there is."""

    def lacks(*_, **__):
        raise ValueError(f"Couldn't instantiate the backend tokenizer:\n\n`{package}` is missing.")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lacks)
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e")
    with pytest.raises(UserError, match=f"{package}.*no tokenizer.json.*pip install") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_panic_of_the_tokenizers_library_is_one_line_and_an_interrupt_is_not(
    model_directory, monkeypatch
):
    directory, _ = model_directory()

    class PanicException(BaseException):
        """As pyo3 names it."""

    for error, expected in ((PanicException("index"), UserError), (KeyboardInterrupt(), None)):

        def raising(*_, error=error, **__):
            raise error

        monkeypatch.setattr(PreTrainedTokenizerFast, "from_pretrained", raising)
        with pytest.raises(expected or KeyboardInterrupt):
            load_tokenizer(directory)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_link_that_leads_nowhere_is_not_taken_for_no_file(model_directory, name):
    directory, _ = model_directory()
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(directory / "blobs" / "not there")
    with pytest.raises(UserError, match=f"{name}: there is no file behind this name"):
        load_tokenizer(directory)


def test_a_template_is_not_read_out_of_a_pipe(gguf_file, tmp_path):
    os.mkfifo(tmp_path / "template.jinja")
    with pytest.raises(UserError, match="it is a pipe or a device"):
        load_tokenizer(gguf_file()[0], chat_template=tmp_path / "template.jinja")
