"""The rules that drop answers: each against a plain definition, on random texts."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.self_align.answers.filters import (
    ANSWER_RULES,
    answer_filter,
    echoes,
    ngrams,
    repeated_share,
    words,
)
from emergent_alignment.self_align.answers.guidance import (
    Guidance,
    read_examples,
    read_principles,
)
from emergent_alignment.self_align.answers.prompt import Written
from emergent_alignment.self_align.answers.settings import AnswersSection

PRINCIPLES = read_principles("bundled")
GUIDANCE = Guidance(PRINCIPLES, read_examples("bundled", PRINCIPLES))
GOOD = "Boil fresh water, pour it over the leaves, and wait about four minutes before you drink."
ASKED = "How do I make good tea?"
texts = st.lists(st.sampled_from("tea water Leaf pot, hot. a b".split()), max_size=24).map(" ".join)


def broken(answer=GOOD, *, instruction=ASKED, thoughts="helpful", ended=True, kept=True, **changes):
    rules = answer_filter(AnswersSection(**changes), GUIDANCE)
    return rules.broken_rule(instruction, Written(thoughts, answer, kept), ended)


def test_each_rule_drops_what_it_is_for_and_nothing_else():
    assert broken() == ""
    assert broken(kept=False) == "format"
    assert broken(thoughts="I wonder") == "unnamed"
    assert broken(thoughts="I wonder", require_principle=False) == ""
    assert broken(ended=False) == "unended"
    assert broken(ended=False, require_end=False) == ""
    assert broken("Boil some water.") == "short"
    assert broken("Boil some water.", min_words=3) == ""
    assert broken("Boil the water and wait. " * 4) == "repeats"
    assert broken("Boil the water and wait. " * 4, max_repeated=1.0) == ""
    assert broken(f"{ASKED} {GOOD}") == "echo"
    assert {"format", "unnamed", "unended", "short", "repeats", "leak", "echo"} == set(ANSWER_RULES)


def test_texts_of_principles_and_examples_leak_unless_the_instruction_says_them():
    secrets = [p.text for p in GUIDANCE.principles]
    secrets += [text for e in GUIDANCE.examples for text in (e.instruction, e.thoughts, e.answer)]
    for secret in secrets:
        if len(words(secret)) >= 8:
            assert broken(f"{GOOD} {secret}") == "leak", secret
            assert broken(f"{GOOD} {secret}", instruction=f"Repeat: {secret}") != "leak", secret
    assert broken(GOOD + " I go by rule 7.") == "leak"
    assert broken(GOOD + " The principles say so.") == "leak"
    assert broken(GOOD + " Kettles obey the rule of thumb, in principle.") == ""


@given(texts, st.integers(1, 5))
def test_the_repeated_share_counts_sequences_that_stood_there_before(text, size):
    found, seen = [], words(text)
    for i in range(len(seen) - size + 1):
        found.append(any(seen[j : j + size] == seen[i : i + size] for j in range(i)))
    assert repeated_share(text, size) == (sum(found) / len(found) if found else 0)


@given(texts, texts, st.integers(1, 6))
def test_a_leak_is_a_run_of_words_in_common(secret, answer, size):
    rules = answer_filter(
        AnswersSection(min_words=0, max_repeated=1.0, leak_words=size, max_echo=1.0),
        Guidance((), (type(GUIDANCE.examples[0])("", "", secret),)),
    )
    told, hidden = words(answer), words(secret)
    common = any(
        told[i : i + size] == hidden[j : j + size]
        for i, j in itertools.product(range(len(told) - size + 1), range(len(hidden) - size + 1))
    )
    assert (rules.broken_by_text("", answer, True) == "leak") == common
    assert bool(ngrams(answer, size) & ngrams(secret, size)) == common


@given(texts, texts)
def test_a_copy_of_the_instruction_echoes_it_whatever_follows(instruction, rest):
    long = f"{instruction} tell me now please"
    assert echoes(long, long.upper(), 0.8)
    assert echoes(long, f"{long} {rest}", 0.8)
    assert not echoes(long, "Something else altogether, with no word of it in common", 0.8)


@given(texts, texts, st.booleans(), st.booleans())
def test_looser_settings_never_drop_what_stricter_ones_keep(instruction, answer, ended, kept):
    loose = {"require_end": False, "min_words": 0, "max_repeated": 1.0, "max_echo": 1.0}
    strict = broken(answer, instruction=instruction, ended=ended, kept=kept)
    freed = broken(answer, instruction=instruction, ended=ended, kept=kept, leak_words=99, **loose)
    assert strict or not freed
