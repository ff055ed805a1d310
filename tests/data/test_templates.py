"""Chat templates as models have them: read right, or refused in one line that says why."""

import pytest
from test_chat import CONVERSATION, tokenizer
from tiny_chat_model import TEMPLATE

from emergent_alignment.data.chat import read_chat
from emergent_alignment.errors import UserError

HEAD = "{% for m in messages %}"
ASKED = [{"role": "user", "content": "May I?"}]
BLOCK = "<think>\n\n</think>\n\n"
TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
# Thinking can be switched off, as with Qwen 3.
SWITCH = (
    HEAD
    + "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% if '</think>' in m.content %}"
    "{% set said = m.content.split('</think>') %}<think>\n"
    "{{ said[0].split('<think>')[-1].strip() }}\n</think>\n\n{{ said[1].lstrip() }}"
    "{% elif loop.last %}<think>\n\n</think>\n\n{{ m.content }}{% else %}{{ m.content }}{% endif %}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
PROMPTED = "{% if add_generation_prompt %}<|im_start|>assistant\n"
THINKING = {
    "switched": SWITCH,
    "another switch": SWITCH.replace("enable_thinking", "thinking"),
    "a block before every answer": HEAD
    + TURN.replace("{{ m.content }}", "{% if m.role == 'assistant' %}" + BLOCK + "{% endif %}"
    "{{ m.content }}") + "{% endfor %}" + PROMPTED + "{% endif %}",
    "always opened": HEAD
    + TURN.replace("{{ m.content }}", "{% if m.role == 'assistant' %}" + BLOCK + "{% endif %}"
    "{{ m.content }}") + "{% endfor %}" + PROMPTED + "<think>\n{% endif %}",
    "opened, and left out of answers": HEAD
    + TURN.replace("m.content", "m.content.split('</think>')[-1].lstrip()")
    + "{% endfor %}" + PROMPTED + "<think>\n{% endif %}",
    "opened, and answers as they are": HEAD + TURN.replace(
        "assistant\n", "assistant\n<think>\n") + "{% endfor %}" + PROMPTED + "<think>{% endif %}",
}  # fmt: skip


@pytest.mark.parametrize("name", THINKING)
def test_whoever_asks_reads_the_reply_behind_a_closed_block(name):
    chat = read_chat(tokenizer(THINKING[name]))
    ends = [chat.asking_tokens(ASKED), chat.next_turn_tokens("Good?")]
    for tokens in ends:
        text = chat.tokenizer.decode(tokens)
        assert text.endswith(f"<|im_start|>assistant\n{BLOCK}"), text
        assert text.count("<think>") == 1
    begun = chat.tokenizer.decode(chat.asking_tokens(ASKED, begun="1."))
    assert begun.endswith(f"{BLOCK}1.")
    assert chat.tokenizer.decode(chat.reply_tokens("No.")) == "No."


@pytest.mark.parametrize("name", THINKING)
def test_a_target_has_its_reasoning_or_an_empty_block_and_never_two(name):
    chat = read_chat(tokenizer(THINKING[name]))
    for answer, block in (
        ("No.", BLOCK),
        ("<think>\nIt thawed.\n</think>\n\nNo.", "<think>\nIt thawed.\n</think>\n\n"),
    ):
        tokens = chat.response_tokens(answer)
        text = chat.tokenizer.decode(chat.prompt_tokens(ASKED) + tokens)
        assert text.endswith(f"<|im_start|>assistant\n{block}No.<|im_end|>"), text
    assert chat.decode(chat.response_tokens("No.")) == "No."
    corrected = chat.as_drafted([*chat.reply_tokens("No."), chat.end_token])
    assert corrected == chat.response_tokens("No.")


def test_reasoning_is_written_as_the_template_writes_it():
    chat = read_chat(tokenizer(SWITCH))
    answer = "<think>It thawed.</think>No."
    whole = tokenizer(SWITCH).apply_chat_template(
        [*ASKED, {"role": "assistant", "content": answer}], tokenize=False
    )
    ours = chat.prompt_tokens(ASKED) + chat.response_tokens(answer)
    assert chat.tokenizer.decode(ours) == whole.removesuffix("\n")


def test_a_template_without_generation_prompts_begins_the_turn_all_the_same():
    template = HEAD + TURN + "{% endfor %}"
    chat, usual = read_chat(tokenizer(template)), read_chat(tokenizer(TEMPLATE))
    assert chat.prompt_tokens(CONVERSATION) == usual.prompt_tokens(CONVERSATION)
    assert chat.asking_tokens(CONVERSATION) == usual.asking_tokens(CONVERSATION)
    assert chat.response_tokens("No.") == usual.response_tokens("No.")
    assert chat.next_turn_tokens("Why?") == usual.next_turn_tokens("Why?")


FAILING = {
    "upper-cased": (TEMPLATE.replace("m.content", "m.content | upper"), "changes the letters"),
    "parts": (TEMPLATE.replace("m.content", "m.content[0]['text']"), "leaves .* out"),
    "repeated": ("{{ messages | tojson }}" + TEMPLATE, "in another way"),
    "tools": ("{{ tools | length }}" + TEMPLATE, "has no len"),
    "syntax": (TEMPLATE + "{% if %}", "Expected an expression"),
    "undefined": ("{{ bos_token + '' }}" + TEMPLATE, "bos_token"),
    "division": ("{{ 1 // 0 }}" + TEMPLATE, "division|modulo"),
    "attribute": ("{{ messages[7].role }}" + TEMPLATE, "no element 7"),
    "overflow": ("{% for i in range(10**9) %}{% endfor %}" + TEMPLATE, "[Rr]ange"),
    "unknown filter": ("{{ messages | nonsense }}" + TEMPLATE, "nonsense"),
    "unsafe": ("{{ ''.__class__.__mro__ }}" + TEMPLATE, "unsafe|access"),
    "unknown include": ("{% include 'x' %}" + TEMPLATE, "."),
    "recursion": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}" + TEMPLATE, "recursion"),
    "several": ({"rag": TEMPLATE, "tool_use": TEMPLATE}, "rag, tool_use"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_template_that_cannot_be_used_is_one_line_that_names_the_model(name):
    template, said = FAILING[name]
    with pytest.raises(UserError, match=f"models/mine: .*{said}") as raised:
        read_chat(tokenizer(template), "models/mine")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    "templates",
    [
        {"default": TEMPLATE, "rag": "no"},
        {"chat": TEMPLATE},
        [{"name": "chat", "template": TEMPLATE}],
    ],
)
def test_of_named_templates_the_default_or_the_only_one_is_used(templates):
    chat = read_chat(tokenizer(templates))
    assert chat.prompt_tokens(CONVERSATION) == read_chat(tokenizer()).prompt_tokens(CONVERSATION)
