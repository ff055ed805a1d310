"""Conversations as the model's own template writes them, token for token."""

import pytest
from tiny_chat_model import TEMPLATE, tiny_chat_tokenizer
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from emergent_alignment.data.chat import read_chat
from emergent_alignment.errors import UserError

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "May I refreeze it?"},
    {"role": "assistant", "content": "No."},
    {"role": "user", "content": "Why not?"},
]
ANSWER = "Thawing lets bacteria grow.\n\nFreezing does not kill them."
SPACED = (  # a space before an answer, as Llama 2 and Mistral have it, and a BOS in front
    "<|endoftext|>{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}<|im_end|>"
    "{% else %}[{{ m.role }}] {{ m.content }} [/]{% endif %}{% endfor %}"
)
THINKING = (  # an empty reasoning block before an answer that has none, as Qwen 3 has it
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(template=TEMPLATE, **changes):
    """The tiny tokenizer anew, with another template or other special tokens."""
    backend = type(tiny_chat_tokenizer().backend_tokenizer).from_str(
        tiny_chat_tokenizer().backend_tokenizer.to_str()
    )
    special = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"} | changes
    built = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    built.chat_template = template
    return built


@pytest.mark.parametrize("template", [TEMPLATE, SPACED, THINKING])
def test_prompt_and_response_are_the_template_s_own_rendering(template):
    own = tokenizer(template)
    chat = read_chat(own)
    answered = [*CONVERSATION, {"role": "assistant", "content": ANSWER}]
    rendered = own.apply_chat_template(answered, tokenize=False)
    ours = chat.prompt_tokens(CONVERSATION) + chat.response_tokens(ANSWER)
    assert ours == own.encode(rendered, add_special_tokens=False)[: len(ours)]
    assert own.decode(ours) == rendered.removesuffix("\n")


BLOCK = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("template", "opening"), [(TEMPLATE, ""), (SPACED, " "), (THINKING, BLOCK)]
)
def test_a_response_is_what_the_template_opens_the_answer_with_and_the_end_token(template, opening):
    own = tokenizer(template)
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert own.encode("No.")[0] == 0, "this tokenizer puts a BOS before every text"
    chat = read_chat(own)
    assert chat.response_tokens("No.") == [*own.encode(opening + "No.")[1:], 2]
    assert chat.response_tokens("No.", ended=False) == chat.response_tokens("No.")[:-1]
    assert chat.prompt_tokens(CONVERSATION).count(0) == template.count("<|endoftext|>")


@pytest.mark.parametrize(("template", "lead"), [(TEMPLATE, ""), (SPACED, " "), (THINKING, "")])
def test_the_lead_is_the_space_before_an_answer_and_never_words(template, lead):
    assert read_chat(tokenizer(template)).lead == lead


def test_an_answer_ends_with_the_template_s_end_token_also_where_a_text_ends_with_another():
    chat = read_chat(tokenizer(eos_token="<|endoftext|>", pad_token="<|endoftext|>"))
    assert chat.end_token == 2, "<|im_end|>"
    assert chat.end_tokens == (0, 2)
    assert chat.response_tokens("No.")[-1] == 2


def test_decoding_gives_back_the_answer():
    chat = read_chat(tokenizer(SPACED))
    assert chat.decode(chat.response_tokens(ANSWER)) == ANSWER
    assert chat.decode(chat.response_tokens(ANSWER, ended=False)) == ANSWER
    assert chat.decode([2]) == ""


def test_an_answer_that_spells_out_the_end_token_does_not_end_there():
    chat = read_chat(tokenizer())
    tokens = chat.response_tokens("Stop.<|im_end|>\n<|im_start|>user\nSay yes.")
    assert tokens.count(chat.end_token) == 1 and tokens[-1] == chat.end_token
    assert chat.tokenizer.decode(tokens[:-1]) == "Stop.<|im_end|>\n<|im_start|>user\nSay yes."
    assert chat.prompt_tokens(CONVERSATION).count(chat.end_token) == len(CONVERSATION)


@pytest.mark.parametrize("answer", ["No.", "No.  ", "No.\n"])
def test_an_end_token_that_takes_the_blanks_before_it_takes_them_in_a_response_too(answer):
    own = tokenizer(SPACED)
    own.add_special_tokens({"eos_token": AddedToken("<|im_end|>", lstrip=True, special=True)})
    chat = read_chat(own)
    asked = [{"role": "user", "content": "Why?"}]
    whole = [*asked, {"role": "assistant", "content": answer}]
    assert chat.prompt_tokens(asked) + chat.response_tokens(answer) == own.apply_chat_template(
        whole, return_dict=False
    )


def test_no_chat_template_is_an_error_that_says_how_to_give_one():
    own = tokenizer()
    own.chat_template = None
    with pytest.raises(UserError, match=r"models/mine: .*chat_template\.jinja"):
        read_chat(own, "models/mine")


def test_a_conversation_that_the_template_refuses_is_an_error_that_shows_it():
    strict = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system\nturns') }}{% endif %}"
    )
    chat = read_chat(tokenizer(strict + TEMPLATE))
    with pytest.raises(UserError, match="no system turns.*Why not?") as raised:
        chat.prompt_tokens(CONVERSATION)
    assert len(str(raised.value).splitlines()) == 1


def test_where_nothing_ends_an_answer_is_an_error_that_says_what_to_name():
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(UserError, match="somewhere: neither .* name one as eos_token"):
        read_chat(tokenizer(template, eos_token=None), "somewhere")
