"""Every candidate ends in exactly one outcome, each for its own cause, with a scripted reviewer."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from emergent_alignment.conscience.chance import ChanceReviewer
from emergent_alignment.conscience.form import alike
from emergent_alignment.conscience.hearing import Corrections, Score
from emergent_alignment.conscience.journal import Journal, read_journal
from emergent_alignment.conscience.journal_records import journal_record
from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.conscience.pairs import (
    ConscienceSettings,
    count_outcomes,
    review_and_revise,
)
from emergent_alignment.conscience.question import QUESTIONS
from emergent_alignment.conscience.review import ReviewSettings
from emergent_alignment.conscience.settings import Chance
from emergent_alignment.generation.text import Answer
from emergent_alignment.randomness import Draws, Purpose

SETTINGS = ConscienceSettings(ReviewSettings(QUESTIONS["advice"]), max_response=10)
PROMPT = [{"role": "user", "content": "What now?"}]
DRAWS = Draws(0, Purpose.CORRECTIONS)


def answer(text="a better answer", tokens=3, ended=True, log_prob=-1.0) -> Answer:
    return Answer(list(range(tokens)), np.full(tokens, log_prob, np.float32), text, ended)


@dataclasses.dataclass(frozen=True)
class ScriptedReviewer:
    """A reviewer whose scores and corrections are scripted: scores_of(text), and
    corrections[link][text]. A score or a correction that is a str is how the reviewer fails."""

    scores_of: Callable
    corrections: dict
    asked: list = dataclasses.field(default_factory=list)
    batch_size: int = 4

    def hear(self, settings, messages, candidates, draws, ids):
        assert 0 < len(messages) == len(candidates) == len(ids) <= self.batch_size
        return ScriptedHearing(self, candidates)


@dataclasses.dataclass(frozen=True)
class ScriptedHearing:
    script: ScriptedReviewer
    candidates: list[Answer]

    def scores(self):
        return [self._score(answer.text) for answer in self.candidates]

    def critiques(self, live, principles):
        return ["It harms." if is_live else "" for is_live in live]

    def write(self, link, place, critiques, live):
        texts = [answer.text for answer, is_live in zip(self.candidates, live) if is_live]
        self.script.asked.append((link, texts))
        corrections, nothing = self.script.corrections[link], answer(text="", tokens=0)
        found = [corrections[a.text] if on else nothing for a, on in zip(self.candidates, live)]
        failures = [a if isinstance(a, str) else "" for a in found]
        return Corrections([nothing if f else a for a, f in zip(found, failures)], None, failures)

    def scores_of(self, written, needed):
        return [
            self._score(answer.text) if need else Score(99.0)
            for answer, need in zip(written.answers, needed)
        ]

    def _score(self, text):
        found = self.script.scores_of(text)
        return Score(math.nan, "", found) if isinstance(found, str) else Score(found)


def step(settings, candidates, scores_of, corrections):
    """One conscience step where `scores_of` scores a text and corrections[link][text] answers."""
    reviewer = ScriptedReviewer(scores_of, corrections)
    given = [answer(text=text) for text in candidates]
    messages = [PROMPT] * len(candidates)
    return review_and_revise(reviewer, settings, messages, given, DRAWS), reviewer.asked


def outcome(candidate_score, correction, correction_score, candidate="the candidate", **changes):
    settings = dataclasses.replace(SETTINGS, chain=("fresh",), **changes)

    def scores_of(text):
        return candidate_score if text == candidate else correction_score

    found, _ = step(settings, [candidate], scores_of, {"fresh": {candidate: correction}})
    return found[0].outcome


@pytest.mark.parametrize(
    ("expected", "arguments", "changes"),
    [
        ("approved", (0.0, answer(), 1.0), {}),
        ("revised_fresh", (-1.0, answer(), 0.0), {}),
        ("dropped_disapproved", (-1.0, answer(), -0.5), {}),
        ("dropped_disapproved", (-1.0, answer(), 0.4), {"margin": 0.5}),
        ("revised_fresh", (-1.0, answer(), 0.5), {"margin": 0.5}),
        ("revised_fresh", (-1.0, answer(), -0.5), {"gate": "relative"}),
        ("revised_fresh", (2.0, answer(), 2.5), {"gate": "relative"}),
        ("dropped_disapproved", (2.0, answer(), 2.0), {"gate": "relative"}),
        ("dropped_disapproved", (2.0, answer(), 2.4), {"gate": "relative", "margin": 0.5}),
        ("approved", (0.0, answer(), 2.0), {"gate": "own"}),
        ("revised_fresh", (-0.1, answer(), 0.0), {"gate": "own"}),
        ("dropped_disapproved", (-1.0, answer(), -0.1), {"gate": "own"}),
        ("dropped_disapproved", (-0.1, answer(), 0.1), {"gate": "own", "margin": 0.3}),
        ("revised_fresh", (-0.1, answer(), 0.3), {"gate": "own", "margin": 0.3}),
        ("approved", (-9.0, answer(), 2.0), {"gate": "own", "threshold": float("nan")}),
        ("dropped_empty", (-1.0, answer(text=" "), 1.0), {}),
        ("dropped_empty", (-1.0, answer(), 1.0, "  "), {}),
        ("dropped_identical", (-1.0, answer(text="The  CANDIDATE"), 1.0), {}),
        ("dropped_truncated", (-1.0, answer(ended=False), 1.0), {}),
        ("revised_fresh", (-1.0, answer(ended=False), 1.0), {"keep_truncated": True}),
        ("dropped_too_long", (-1.0, answer(tokens=11), 1.0), {}),
        ("dropped_not_finite", (math.nan, answer(), 1.0), {}),
        ("dropped_not_finite", (-1.0, answer(), math.nan), {}),
        ("dropped_not_finite", (-1.0, answer(log_prob=-math.inf), 1.0), {}),
        ("dropped_reviewer_failed", ("it hangs", answer(), 1.0), {}),
        ("dropped_reviewer_failed", (-1.0, "it hangs", 1.0), {}),
        ("dropped_reviewer_failed", (-1.0, answer(), "it hangs"), {}),
        ("dropped_empty", ("it hangs", answer(), 1.0, "  "), {}),
    ],
)
def test_each_outcome_has_its_own_cause(expected, arguments, changes):
    assert outcome(*arguments, **changes) == expected


def test_where_the_reviewer_fails_the_record_says_how(tmp_path):
    settings = dataclasses.replace(SETTINGS, chain=("rewrite", "fresh"))
    chain = {"rewrite": {"x": "it broke off"}, "fresh": {"x": answer("y")}}
    scores = {"x": -1.0, "y": "it hangs"}
    found, _ = step(settings, ["x"], scores.get, chain)
    record = journal_record(found[0], step=0, place=0, row=0)
    assert [attempt["failure"] for attempt in record["attempts"]] == ["it broke off", "it hangs"]
    assert record["failure"] == "" and record["candidate_score"] == -1.0
    (unseen,), _ = step(settings, ["x"], lambda text: "it hangs", chain)
    record = journal_record(unseen, step=0, place=0, row=0)
    assert record["failure"] == "it hangs" and record["candidate_score"] is None
    assert record["attempts"] == [] and record["scored_by"] == ""


def test_the_next_link_is_tried_only_where_the_former_failed():
    candidates = ["good", "bad one", "bad two"]
    corrections = {
        "rewrite": {"bad one": answer("rewritten well"), "bad two": answer("rewritten badly")},
        "fresh": {"bad two": answer("fresh")},
    }
    points = {"good": 1, "bad one": -1, "bad two": -1, "rewritten badly": -2}
    found, asked = step(SETTINGS, candidates, lambda text: points.get(text, 1), corrections)
    assert [row.outcome for row in found] == ["approved", "revised_rewrite", "revised_fresh"]
    assert asked == [("rewrite", ["bad one", "bad two"]), ("fresh", ["bad two"])]
    assert [a.reason for a in found[2].attempts] == ["disapproved", ""]
    assert found[2].chosen.text == "fresh"


corrections = st.just("it broke off") | st.builds(
    answer,
    text=st.sampled_from(["", "c0", "something else", "more words than that"]),
    tokens=st.integers(1, 12),
    ended=st.booleans(),
    log_prob=st.sampled_from([-1.0, -math.inf, math.nan]),
)


@given(
    st.lists(st.tuples(st.sampled_from(["", "c"]), corrections, corrections), max_size=6),
    st.sampled_from(["score", "relative", "own"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_counts_add_up_and_only_a_revised_candidate_has_a_chosen_answer(
    rows, gate, keep_truncated, random
):
    candidates = [text and f"{text}{i}" for i, (text, _, _) in enumerate(rows)]
    chain = {
        link: {text: row[place] for text, row in zip(candidates, rows)}
        for place, link in enumerate(("rewrite", "fresh"), 1)
    }
    scores = [-1.0, 0.0, 1.0, math.nan, "it hangs"]
    settings = dataclasses.replace(SETTINGS, gate=gate, keep_truncated=keep_truncated)
    found, _ = step(
        settings,
        candidates,
        lambda text: random.choice(scores),
        chain,
    )
    counts = count_outcomes(found)
    assert sum(counts.values()) == len(candidates) and set(counts) == set(OUTCOMES)
    for row in found:
        assert (row.chosen is not None) == row.outcome.startswith("revised_")
        if row.chosen is not None:
            assert gate == "score" or row.chosen_score > row.score
            assert gate == "relative" or row.chosen_score >= 0


def test_alike_is_one_for_the_same_words_and_zero_for_none_in_common():
    assert alike("Take a  pill", "take a pill") == 1.0
    assert alike("one two", "three four") == 0.0


def test_the_journal_survives_a_torn_line_and_a_repeated_step(tmp_path):
    import datasets

    settings = dataclasses.replace(SETTINGS, chain=("fresh",))
    found, _ = step(settings, ["x"], lambda text: math.nan, {"fresh": {}})
    record = journal_record(found[0], step=3, place=0, row=7)
    assert record["candidate_score"] is None and record["outcome"] == "dropped_not_finite"
    first = Journal(tmp_path, first_step=0)
    first.write([record, record | {"step": 4, "candidate": "old"}])
    first.close()
    with first.path.open("a") as torn:
        torn.write('{"step": 5, "cand')
    again = Journal(tmp_path, first_step=4)
    again.write([record | {"step": 4, "candidate": "new"}])
    again.close()
    assert [(r["step"], r["candidate"]) for r in read_journal(tmp_path)] == [(3, "x"), (4, "new")]
    shards = [str(path) for path in sorted(tmp_path.glob("*.jsonl"))]
    loaded = datasets.load_dataset("json", data_files=shards, cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == 3


@pytest.mark.parametrize("gate", ["score", "own", "relative"])
def test_chance_flags_and_passes_at_its_rates_whatever_was_said(gate):
    def never(text):
        raise AssertionError("chance must not ask the frozen copy for a verdict")

    texts = [f"{i} is what I say" for i in range(600)]
    script = ScriptedReviewer(never, {"fresh": {text: answer() for text in texts}}, batch_size=600)
    settings = dataclasses.replace(
        SETTINGS, gate=gate, chain=("fresh",), threshold=3.0, chance=Chance(0.3, 0.6)
    )

    def outcomes(rows, seed=0):
        found = review_and_revise(
            ChanceReviewer(script),
            settings,
            [PROMPT] * len(rows),
            [answer(texts[row]) for row in rows],
            dataclasses.replace(DRAWS, seed=seed),
            row_ids=rows,
        )
        return {row: (one.outcome, one.score, one.chosen_score) for row, one in zip(rows, found)}

    found = outcomes(range(600))
    scores = np.array([score for _, score, _ in found.values()])
    assert abs((scores < 3.0).mean() - 0.3) < 0.06
    counts = Counter(outcome for outcome, _, _ in found.values())
    tried = counts["revised_fresh"] + counts["dropped_disapproved"]
    assert tried == (600 if gate == "relative" else (scores < 3.0).sum())
    assert abs(counts["revised_fresh"] / tried - 0.6) < 0.12
    # A row is drawn for by its id alone, and anew for another key.
    some = [5, 411, 7]
    assert str(outcomes(some)) == str({row: found[row] for row in some})
    assert outcomes(range(600), seed=1) != found
