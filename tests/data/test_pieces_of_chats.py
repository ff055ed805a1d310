"""Whatever is put behind a prompt has the tokens that it has in the whole rendering, on every
kind of tokenizer and behind every kind of generation prompt."""

import functools

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tiny_tokenizers import KINDS, tiny_tokenizer

from emergent_alignment.conscience.question import answer_words, ask
from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.pieces import tokens_after
from emergent_alignment.errors import UserError

HEAD = "{% for m in messages %}"
TEMPLATES = {
    "zephyr": HEAD + "<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "llama 2": "<s>" + HEAD + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}",
    "mistral": "<s>" + HEAD + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
    "vicuna": "<s>" + HEAD + "{% if m.role == 'user' %}USER: {{ m.content }} {% else %}"
    "ASSISTANT: {{ m.content }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    "special": HEAD + "{{ m.content }}[SEP]{% endfor %}",
    "no generation prompt": HEAD + "[SEP]{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}",
    "hybrid": HEAD + "[SEP]{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n"
    "</think>\n\n{% endif %}{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}"
    "[SEP]assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}",
    "trims": HEAD + "[SEP]{{ m.role }}\n\n{{ m.content | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[SEP]assistant\n\n{% endif %}",
}
CASES = [(kind, name) for kind in KINDS for name in TEMPLATES]
# What begins and ends with a letter, so that nothing joins tokens across a cut; more of it below.
words = st.text(st.sampled_from("aAeY 1.,:\n\té▁日😀<>[]/"), max_size=12)
texts = st.builds("{}{}{}".format, st.sampled_from(["Yes", "No", "A", "so"]), words, st.just("z"))


@functools.cache
def chat_of(kind, name):
    return read_chat(tiny_tokenizer(kind, TEMPLATES[name]))


def whole(chat, *turns, **options):
    """The tokens of the template's own rendering of turns that begin with the user's."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return chat.encode(chat.tokenizer.apply_chat_template(messages, tokenize=False, **options))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CASES), texts, texts)
def test_what_a_model_wrote_on_has_the_tokens_of_the_whole(case, asked, written):
    chat = chat_of(*case)
    prompt = [{"role": "user", "content": asked}]
    behind = chat.written_tokens(written, ended=False)
    assert chat.prompt_tokens(prompt) + behind == chat.encode(chat.prompt_text(prompt) + written)
    assert chat.written_tokens(written, ended=True) == [*behind, chat.end_token]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CASES), texts, texts, texts)
def test_prompt_response_and_next_turn_are_the_whole_rendering(case, asked, answer, request):
    kind, name = case
    chat = chat_of(kind, name)
    prompt = [{"role": "user", "content": asked}]
    ours = chat.prompt_tokens(prompt) + chat.response_tokens(answer)
    expected = whole(chat, asked, answer)
    assert ours == expected[: len(ours)]
    assert chat.decode(chat.response_tokens(answer)) == answer.replace("▁", spelled(kind))
    cut = chat.response_tokens(answer, ended=False)
    assert ours[: -1 - bool(chat.trail)][-len(cut) :] == cut
    if name != "hybrid":  # it shows an earlier answer without the block
        asking = whole(chat, asked, answer, request, add_generation_prompt=True)
        assert ask(chat, "turn", prompt, answer, request) == asking + header(chat)


def spelled(kind):
    """SentencePiece's letter for a space is a space to it."""
    return "▁" if kind == "bytes" else " "


def header(chat):
    """What `no generation prompt` lacks before an answer."""
    return tokens_after(chat.tokenizer, "</s>\n", chat.direct.header)


EACH = pytest.mark.parametrize("kind", KINDS)


@EACH
@pytest.mark.parametrize("name", TEMPLATES)
def test_who_says_a_word_at_once_says_an_answer_word(kind, name):
    chat = chat_of(kind, name)
    for word in ("Yes", "No", "A", "B"):
        said = whole(chat, "May I?", word, enable_thinking=False)
        asked = chat.asking_tokens([{"role": "user", "content": "May I?"}])
        assert said[: len(asked)] == asked
        assert said[len(asked)] in answer_words(chat, (word,)), said[len(asked) :]
        assert chat.reply_tokens(word) == said[len(asked) :][: len(chat.reply_tokens(word))]


def test_a_word_that_is_one_token_only_where_no_reply_begins_is_none_to_ask_for():
    chat = chat_of("never", "zephyr")
    assert len(chat.encode(" good")) == 1 and len(chat.reply_tokens("good")) > 1
    with pytest.raises(UserError, match="does not begin with one token for any of .'good'"):
        answer_words(chat, ("good",))
    assert answer_words(chat, ("good", "Yes"))


@EACH
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_begun_reply_is_the_beginning_of_the_whole(kind, name):
    chat = chat_of(kind, name)
    begun = chat.asking_tokens([{"role": "user", "content": "May I?"}], begun="1. Yes\n2.")
    assert begun == whole(chat, "May I?", "1. Yes\n2. No", enable_thinking=False)[: len(begun)]


hostile = st.lists(
    st.sampled_from(
        ["</s>", "<s>", "[SEP]", "<unk>", "<s", ">", "[", "SEP]", "a", " ", "\n", "\ue000"]
    )
).map("".join)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS), hostile, hostile)
def test_what_is_said_spells_no_special_token(kind, asked, answer):
    chat = chat_of(kind, "no generation prompt")
    control = set(chat.tokenizer.all_special_ids) | {3}

    def count(asked, answer):
        prompt = [{"role": "user", "content": f"a{asked}z"}]
        rows = [chat.prompt_tokens(prompt), chat.response_tokens(f"a{answer}z")]
        rows += [chat.asking_tokens(prompt), chat.next_turn_tokens(f"a{answer}z")]
        rows += [ask(chat, layout, prompt, answer, asked) for layout in ("turn", "quote")]
        return [sum(token in control for token in row) for row in rows]

    assert count(asked, answer) == count("", "")
    prompt = chat.prompt_tokens([{"role": "user", "content": f"a{asked}z"}])
    assert f"a{asked}z" in chat.tokenizer.decode(prompt), "not a letter is changed"
    assert chat.tokenizer.decode(chat.response_tokens(f"a{answer}z", ended=False)) == f"a{answer}z"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), words, words)
def test_tokens_that_would_join_across_the_cut_leave_the_prompt_s_own(kind, before, rest):
    tokenizer = tiny_tokenizer(kind, TEMPLATES["zephyr"])
    known = tokenizer.encode(f"a{before}", add_special_tokens=False)
    shown = tokenizer.decode(known + tokens_after(tokenizer, f"a{before}", rest))
    assert shown == f"a{before}{rest}".replace("▁", spelled(kind))
