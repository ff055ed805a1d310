"""What a correction must have in common with its candidate."""

import pytest

from emergent_alignment.conscience.form import KeptForm, alike, has_form, keeps_form, length_ratio
from emergent_alignment.errors import UserError

FORM = r"Verdict: .+\nTip: .+"


def same_first_word(candidate: str, correction: str) -> bool:
    return candidate.split()[0] == correction.split()[0]


def test_a_ratio_of_lengths_is_of_words():
    assert length_ratio("one two", "one two three four") == 2
    form = KeptForm(length_ratio=(0.5, 1.5))
    assert form.holds("one two three four", "one two") and form.holds("a b", "c d e")
    assert not form.holds("one two three four", "one") and not form.holds("a b", "c d e f")
    assert length_ratio("", "word") == 1


def test_likeness_has_a_least():
    assert KeptForm(likeness=0.5).holds("put it in the fridge", "put it in the oven")
    assert not KeptForm(likeness=0.5).holds("put it in the fridge", "never mind")
    assert alike("Put it", "put IT") == 1


@pytest.mark.parametrize(
    "candidate, correction, kept",
    [
        ("Verdict: Yes.\nTip: Go.", "Verdict: No.\nTip: Stay.", True),
        ("Verdict: Yes.\nTip: Go.", "No, stay.", False),
        ("No form at all.", "Another without.", True),
        ("No form at all.", "Verdict: No.\nTip: Stay.", True),
    ],
)
def test_a_regular_expression_must_match_where_the_candidate_matches(candidate, correction, kept):
    assert KeptForm(keeps=FORM).holds(candidate, correction) is kept


@pytest.mark.parametrize(
    "candidate, correction, kept",
    [
        ("Verdict: Yes.\nTip: Go.", "Verdict: No.\nTip: Stay at home.", True),
        ("Verdict: Yes.\nTip: Go.", "Verdict: No, stay. Tip: at home.", False),
        ("Verdict: Yes.\nTip: Go.", "Answer: No.\nTip: Stay.", False),
        ("1. Go.\n2. Stay.\n3. Both.", "1) Sit.\n2) Walk.", True),
        ("- Go.\n- Stay.", "Go, or stay.", False),
        ("# Plan\n\n```python\ngo()\n```", "# Another\n```\nstay()\n```", True),
        ("| a | b |", "a, b", False),
        ("It is 10:30: late.\nhttps://there", "Go.", True),
        ("Go.", "# Plan\n- Go.", True),
    ],
)
def test_a_structure_is_kept_where_all_that_lines_begin_with_comes_again(
    candidate, correction, kept
):
    assert KeptForm(keeps="structure").holds(candidate, correction) is kept
    assert has_form("structure", candidate)


def test_a_function_of_one_s_own_decides():
    check = f"python:{__name__}.same_first_word"
    assert keeps_form(check)("Go home", "Go away") and not keeps_form(check)("Go home", "Stay")
    assert has_form(check, "anything")
    assert has_form(FORM, "Verdict: a\nTip: b") and not has_form(FORM, "a Verdict: a\nTip: b")


@pytest.mark.parametrize(
    "check, said",
    [
        ("(", "no regular expression"),
        ("python:nowhere.there", "cannot be imported"),
        ("python:math.there", "cannot be imported"),
        ("python:math.pi", "no function"),
    ],
)
def test_what_is_no_check_is_an_error_that_names_the_field(check, said):
    with pytest.raises(UserError, match=rf"config\.conscience\.keeps.*{said}"):
        keeps_form(check)
