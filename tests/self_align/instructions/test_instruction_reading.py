"""Lists as models write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.self_align.instructions.list_entries import Entry, read_list


def texts(text: str, ended: bool = True) -> list[str]:
    return [entry.text for entry in read_list(text, ended=ended)]


@pytest.mark.parametrize(
    "text",
    [
        "1. First thing\n2. Second thing\n3. Third",
        "6. First thing\n7. Second thing\n1. Third",
        "1) First thing\n\n2) Second thing\n\n3) Third\n",
        "- First thing\n- Second thing\n- Third",
        "* First thing\n• Second thing\n  – Third",
        "**1.** First thing\n**2.** **Second thing**\n### 3. Third",
        'Here you are:\n1. "First thing"\n2. “Second thing”\n3. `Third`',
        "Question 1: First thing\nTask 2. Second thing\n3. Instruction: Third",
        "1.\nFirst thing\n2. Second thing\n3. Third\n\nI hope this helps!",
        "(1) First thing\n(2): Second thing\n(3) Third",
        "[1] First thing\n[2] Second thing\n[3] Third",
        "1、First thing\n2。Second thing\n3：Third",
        "Q1: First thing\nQ2. Second thing\nTask #3: Third",
        "+ First thing\n▪ Second thing\n◦ Third",
        "1. First thing\r\n2. Second\x85thing\r\n3. Third\r\n",
        "1. First thing\n2. Second\u2028thing\n3. Third",
    ],
)
def test_lists_of_many_styles_are_read_alike(text):
    assert texts(text) == ["First thing", "Second thing", "Third"]


def test_what_follows_a_colon_belongs_to_the_entry_and_nothing_else_does():
    written = '1. Classify this sentence:\n"Birds sing."\n2. What is ice?\nAnswer: frozen water\n'
    assert texts(written) == ['Classify this sentence: "Birds sing."', "What is ice?"]


def test_numbers_within_an_instruction_are_no_markers():
    assert texts("1. 3x + 7 = 10. Solve it.\n2. Is 2.5 more than 1.5?") == [
        "3x + 7 = 10. Solve it.",
        "Is 2.5 more than 1.5?",
    ]
    assert texts("1. Find the rest\n3.5 km is how far?") == ["Find the rest"]


def test_only_the_entry_in_which_the_answer_was_cut_is_unfinished():
    cut = read_list("1. Whole one\n2. Half o", ended=False)
    assert cut == [Entry("Whole one", True), Entry("Half o", False)]
    after = read_list("1. Whole one\nAnd an explanation that is c", ended=False)
    assert after == [Entry("Whole one", True)]
    assert read_list("1. Whole one\n2. Half o", ended=True)[1].finished


def test_a_quotation_within_an_instruction_stays():
    assert texts('1. "Yes" and "no": translate both.\n2. "It\'s \'so\' late"') == [
        '"Yes" and "no": translate both.',
        "It's 'so' late",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "no list at all", "1.", "1.\n2.\n"])
def test_no_list_has_no_entries_or_empty_ones(text):
    assert not any(texts(text))


@given(st.text(alphabet='1.)-* \n:ab"*_`“”', max_size=60), st.booleans())
def test_entries_are_single_lines_in_order_whatever_is_written(text, ended):
    entries = read_list(text, ended=ended)
    assert all("\n" not in entry.text and entry.text == entry.text.strip() for entry in entries)
    assert all(entry.finished for entry in entries[:-1])


words = st.text(alphabet="abcxyz", min_size=1, max_size=5)
sentences = st.lists(words, min_size=1, max_size=5).map(lambda some: " ".join(some) + "?")


@given(st.lists(sentences, max_size=8))
def test_what_is_listed_is_read_back(written):
    listed = "\n".join(f"{number}. {text}" for number, text in enumerate(written, 4))
    assert texts(listed) == written
