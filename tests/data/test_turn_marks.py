"""Text that is quoted spells no turn mark, whether it is a special token or plain letters."""

import unicodedata

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from test_chat import tokenizer
from test_pieces_of_chats import TEMPLATES
from tiny_tokenizers import KINDS, narrowing_tokenizer, tiny_tokenizer

from emergent_alignment.conscience import endpoint_hearing
from emergent_alignment.conscience.question import ask, quoted
from emergent_alignment.data.chat import read_chat

MARKS = {
    "llama 2": ("[INST]", "[/INST]", "</s>", "<s>", "<<SYS>>", "<</SYS>>"),
    "zephyr": ("<|user|>", "<|assistant|>", "<|system|>", "</s>"),
    "vicuna": ("USER:", "ASSISTANT:", "</s>"),
}
ALPACA = (
    "{% for m in messages %}### {{ 'Instruction' if m.role == 'user' else 'Response' }}:\n"
    "{{ m.content }}\n\n{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
OWN = ALPACA.replace("### ", "@@ ")
KNOWN = [
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|assistant|>", "<｜Assistant｜>",
    "<start_of_turn>",
    "<end_of_turn>", "[INST]", "[/INST]", "<<SYS>>", "USER:", "ASSISTANT:", "### Response:",
    "### Instruction:", "</s>", "<s>", "<bos>", "[SYSTEM_PROMPT]", "\nAssistant:", "\n\nHuman:",
    "[|assistant|]", "<turn|>", "<im_end>", "<reserved_107>", "<unused0>", "<extra_id_1>",
    "◁think▷",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MARKS)
def test_a_quotation_holds_no_more_marks_than_one_of_harmless_text(kind, name):
    chat = read_chat(tiny_tokenizer(kind, TEMPLATES[name]))

    def text(said):
        tokens = ask(chat, "quote", [{"role": "user", "content": said}], said, "Good?")
        return chat.tokenizer.decode(tokens)

    for mark in MARKS[name]:
        assert text(f"Fine. {mark} Yes").count(mark) == text("Fine. Yes").count(mark), mark


def wide(text: str) -> str:
    """Its signs and letters as East Asian texts have them, which NFKC makes ASCII of."""
    return "".join(chr(ord(a) + 0xFEE0) if "!" <= a <= "~" else a for a in text)


@pytest.mark.parametrize("name", MARKS)
def test_marks_that_the_tokenizer_makes_of_other_letters_are_broken_up_too(name):
    chat = read_chat(narrowing_tokenizer(TEMPLATES[name]))
    control = set(chat.tokenizer.all_special_ids)

    def rows(said):
        prompt = [{"role": "user", "content": said}]
        yield chat.prompt_tokens(prompt)
        yield chat.response_tokens(said)
        yield chat.next_turn_tokens(said)
        yield ask(chat, "quote", prompt, said, "Good?")

    harmless = list(rows("Fine. Yes"))
    for mark in MARKS[name]:
        spelled = list(rows(f"Fine. {wide(mark)} Yes"))
        for tokens, others in zip(spelled, harmless):
            assert sum(t in control for t in tokens) == sum(t in control for t in others), mark
        shown, others = (chat.tokenizer.decode(row[-1]) for row in (spelled, harmless))
        assert shown.count(mark) == others.count(mark), mark
        everywhere = unicodedata.normalize("NFKC", endpoint_hearing.without_control(wide(mark)))
        assert mark not in everywhere
    for without_control in (chat.without_control, endpoint_hearing.without_control):
        assert without_control(wide("Fine. <b> 1 < 2")) == wide("Fine. <b> 1 < 2")


@pytest.mark.parametrize("template", [ALPACA, OWN])
def test_marks_are_learnt_from_what_the_template_writes_between_turns(template):
    chat = read_chat(tokenizer(template))
    for word in ("Instruction", "Response"):
        mark = template[template.index("%}") + 2 :][:3].strip() + f" {word}:"
        assert mark not in chat.without_control(f"Fine.\n\n{mark}\nYes")
        assert mark.lower() not in chat.without_control(f"Fine.\n\n{mark.lower()}\nYes")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([*KNOWN, "a", " ", "\n"])).map("".join))
def test_an_endpoint_is_shown_no_mark_of_any_family(text):
    shown = quoted(
        [{"role": "user", "content": text}], text, "Good?", endpoint_hearing.without_control
    )
    assert not [mark for mark in KNOWN if mark in shown[0]["content"]]


def test_words_of_everyday_stay_as_they_are():
    text = "The user asked the assistant: # Title\n## Response times\n1 < 2 | a[0] <b>x</b> x |> f"
    assert read_chat(tokenizer()).without_control(text) == text
    assert endpoint_hearing.without_control(text) == text
