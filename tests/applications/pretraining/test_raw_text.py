"""Documents as prompts, and the plain template of tokenizers that know no chat."""

import unicodedata

import numpy as np
import pytest
from tiny_tokenizers import KINDS, narrowing_tokenizer, tiny_tokenizer

from emergent_alignment.applications.pretraining.corpus import Document
from emergent_alignment.applications.pretraining.documents import read_raw_text
from emergent_alignment.applications.pretraining.windows import pack
from emergent_alignment.conscience.question import answer_words, ask, quote, quote_beginning
from emergent_alignment.errors import UserError
from emergent_alignment.models.plain_text import (
    END_OF_DOCUMENT,
    PLAIN_TEMPLATE,
    train_tokenizer,
)

TEXT = "Sail out at dawn.\n\n  Come home before dark, é.\n"


@pytest.fixture(scope="module")
def chat():
    return read_raw_text(train_tokenizer([TEXT * 9], 320, words=("Yes", "No")), "plain")


def document(text):
    return [{"role": "document", "content": text}]


def test_a_document_s_tokens_are_those_of_its_text_and_its_end(chat):
    (tokens,) = chat.document_tokens([Document("a", TEXT)])
    assert tokens[-1] == chat.end_of_document == chat.end_token
    assert chat.tokenizer.decode(tokens[:-1], clean_up_tokenization_spaces=False) == TEXT
    assert chat.prompt_tokens(document(TEXT)) == tokens[:-1]
    assert chat.document_tokens([]) == []


def test_text_that_spells_a_special_token_is_text(chat):
    (tokens,) = chat.document_tokens([Document("a", f"a{END_OF_DOCUMENT}b")])
    assert tokens.count(chat.end_of_document) == 1
    assert chat.end_of_document not in chat.prompt_tokens(document(END_OF_DOCUMENT))
    # … and can end no quotation, either.
    asked = quote(chat, document(END_OF_DOCUMENT), f"{END_OF_DOCUMENT} </answer>", "Fine?")
    shown = chat.tokenizer.decode(asked)
    assert chat.end_of_document not in asked and shown.count("</answer>") == 1


@pytest.mark.parametrize("spelled", ["</s>", "<s>", "＜/s＞", "</s></s>"])
def test_text_is_no_special_token_where_the_vocabulary_has_it_as_a_piece(spelled):
    chat = read_raw_text(narrowing_tokenizer(PLAIN_TEMPLATE), "unigram")
    plain, marked = chat.text_tokens(["a  b", f"a {spelled} b"])
    assert not set(chat.tokenizer.all_special_ids) & {*plain, *marked}
    assert chat.tokenizer.decode(marked) == f"a {unicodedata.normalize('NFKC', spelled)} b"


@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_a_model_without_a_template_is_asked_in_plain_text(chat, layout):
    asked = ask(chat, layout, document("Sail out"), "at dawn.", "Fine? Answer Yes or No.")
    shown = chat.tokenizer.decode(asked)
    assert shown.rstrip().endswith("Fine? Answer Yes or No.\n\nAssistant:")
    assert "Sail out" in shown and "at dawn." in shown
    if layout == "quote":
        assert shown.startswith("User: ") and "Document: Sail out" in shown
        assert asked[: len(quote_beginning(chat))] == quote_beginning(chat)
    else:
        assert shown.startswith("Sail out at dawn.<|endoftext|>\n\nUser: ")
    assert answer_words(chat, ("Yes",)) and answer_words(chat, ("No",))


def test_a_prefix_is_the_first_half_of_the_longest_piece(chat):
    tokens = chat.document_tokens([Document("a", "Come."), Document("b", TEXT), Document("c", "")])
    windows = pack(tokens, sum(map(len, tokens)))
    (message,) = chat.prefix(windows, 0, 1000)
    assert TEXT.startswith(message["content"])
    assert chat.prompt_tokens([message]) == tokens[1][: len(tokens[1]) // 2]
    (short,) = chat.prefix(windows, 0, 3)
    assert chat.prompt_tokens([short]) == tokens[1][:3]
    empty = pack([tokens[2]] * 4, 4)
    assert chat.prompt_tokens(chat.prefix(empty, 0, 3)), "an empty document gives a prompt, too"


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_that_begins_within_a_word_gives_a_prompt_of_its_own_tokens(kind):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>\n{% endfor %}"
    chat = read_raw_text(tiny_tokenizer(kind, template), kind)
    text = "Unquestionably interesting.\n\n日本語では、　空白がない。 Sea 😀. "
    (tokens,) = chat.document_tokens([Document("a", text * 2)])
    for start in range(60):
        windows = pack([tokens[start:]], len(tokens) - start)
        for size in (9, 12, 13, 20):
            prompt = chat.prompt_tokens(chat.prefix(windows, 0, size))
            places = range(start, start + 16)
            assert any(tokens[i : i + len(prompt)] == prompt for i in places), (start, prompt)
            assert len(prompt) > 2


def test_a_tokenizer_without_an_end_is_an_error(chat):
    unending = train_tokenizer([TEXT], 300)
    unending.eos_token = None
    with pytest.raises(UserError, match="no end token"):
        read_raw_text(unending, "somewhere")


def test_the_tokenizer_of_a_corpus_is_the_same_each_time():
    first, second = (train_tokenizer([TEXT * 3, "Yes"], 320, words=("Yes",)) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert np.array(first.encode(TEXT)).max() < 320
