"""Calibration on scripted scores: what is chosen, on which rows, and what is said about it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from emergent_alignment.conscience import calibration
from emergent_alignment.conscience.calibration import Sweep, calibrate
from emergent_alignment.conscience.question import QUESTIONS
from emergent_alignment.conscience.review import ReviewSettings, question_form
from emergent_alignment.data.examples import Example
from emergent_alignment.errors import UserError

SWEEP = Sweep()
SETTINGS = ReviewSettings(QUESTIONS["advice"], batch_size=3)
EXAMPLES = [
    Example(({"role": "user", "content": str(i)},), "bad", safe=f"safe {i}", harmful=f"bad {i}")
    for i in range(80)
]

DRAWN = np.random.default_rng(0).random((2, 80))


class Scripted:
    """Stands for a reader and its scores; score(settings, safe, row) decides for each form of
    question. Notes who was asked what."""

    source = "scripted"

    def __init__(self, monkeypatch, score):
        self.asked, self.score = [], score
        monkeypatch.setattr(calibration, "reader_of", lambda model, chat, settings: settings)
        monkeypatch.setattr(calibration, "scores_by_form", self.scores_by_form)

    def scores_by_form(self, reader, forms, prompts, answers, *, progress):
        rows = [int(prompt[-1]["content"]) for prompt in prompts]
        assert [answer.split()[-1] for answer in answers] == [str(row) for row in rows]
        safe = [answer.startswith("safe") for answer in answers]
        columns = []
        for form in forms:
            settings = replace(reader, **KNOWN_FORMS[form])
            self.asked.append((settings, rows))
            columns.append([self.score(settings, *at) for at in zip(safe, rows)])
        progress(len(answers), len(answers))
        return np.array(columns, np.float32).T

    def run(self, sweep=SWEEP, examples=EXAMPLES, **options):
        return calibrate(self, None, examples, sweep, SETTINGS, **options)


KNOWN_FORMS = {
    question_form(question, negated=polarity == "negated"): {
        "question": question,
        "polarity": polarity,
    }
    for question in QUESTIONS.values()
    for polarity in ("positive", "negated")
}


def noise(row: int) -> float:
    return (row * 37 % 101) / 101


@pytest.mark.parametrize("polarity", ["positive", "negated"])
@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_the_setting_that_tells_most_apart_is_chosen(monkeypatch, layout, polarity):
    def score(settings, safe, row):
        best = (settings.question.name, settings.layout, settings.polarity)
        return noise(row) + 3 * safe * (best == ("wellbeing", layout, polarity))

    found = Scripted(monkeypatch, score).run(Sweep(polarities=("positive", "negated")))
    chosen = found["chosen"]
    assert (chosen["question"], chosen["layout"]) == ("wellbeing", layout)
    assert chosen["polarity"] == polarity
    assert chosen["auc"][0] == chosen["told_apart"][0] == 1.0
    assert found["sees"] and "tells this kind of harm apart" in found["verdict"]


def test_both_is_the_mean_of_the_two_forms(monkeypatch):
    """… so that a reviewer that says Yes to everything, with opposite leanings, is undone."""

    def score(settings, safe, row):
        leaning = 10 * noise(row) * (1 if settings.polarity == "positive" else -1)
        if settings.polarity == "both":
            leaning = 0
        return leaning + safe

    found = Scripted(monkeypatch, score).run(Sweep(("careful",), ("quote",)))
    powers = {c["polarity"]: c["auc"][0] for c in found["candidates"]}
    assert powers["both"] == 1.0 and powers["positive"] < 0.7 and powers["negated"] < 0.7
    assert found["chosen"]["polarity"] == "both"


def test_rows_that_choose_are_not_rows_that_report(monkeypatch):
    scripted = Scripted(monkeypatch, lambda settings, safe, row: safe + noise(row))
    found = scripted.run(Sweep(num_selecting=20, num_reporting=30))
    *selecting, (chosen, reporting) = scripted.asked
    assert all(rows == selecting[0][1] for _, rows in selecting)
    assert len(set(selecting[0][1])) == found["pairs_selecting"] == 20
    assert len(set(reporting)) == found["pairs_reporting"] == 30
    assert not set(selecting[0][1]) & set(reporting)
    assert len(selecting) == 5 * 2 * 2, "every wording, layout and form is asked once"
    assert chosen.batch_size == SETTINGS.batch_size


def test_few_rows_are_halved_and_the_seed_decides_which(monkeypatch):
    scripted = Scripted(monkeypatch, lambda settings, safe, row: safe + noise(row))
    splits = []
    for seed in (0, 0, 1):
        found = scripted.run(Sweep(("advice",), ("quote",), seed=seed), EXAMPLES[:9])
        assert (found["pairs_selecting"], found["pairs_reporting"]) == (4, 5)
        splits.append(scripted.asked[-1][1])
    assert splits[0] == splits[1] != splits[2]


def test_the_threshold_flags_a_twentieth_of_the_safe_answers_that_chose(monkeypatch):
    scripted = Scripted(monkeypatch, lambda settings, safe, row: 2 * safe + noise(row))
    found = scripted.run(Sweep(("advice",), ("quote",), ("positive",), 40, 20))
    threshold = found["chosen"]["threshold"]
    safe = [2 + noise(row) for row in scripted.asked[0][1][:40]]
    assert sum(score < threshold for score in safe) == 40 // 20
    reported = found["chosen"]
    flagged = [score < threshold for score in reported["scores_safe"]]
    assert reported["flag_rate_safe"][0] == np.mean(flagged)
    assert reported["flag_rate_harmful"][0] == 1.0
    assert len(reported["scores_safe"]) == len(reported["scores_harmful"]) == 20


@pytest.mark.parametrize(
    ("score", "sees"),
    [
        (lambda settings, safe, row: 0.0, False),
        (lambda settings, safe, row: -float(safe), False),
        (lambda settings, safe, row: DRAWN[int(safe), row], False),
        # Every pair told apart by a hair, though the answers overlap: pairs are enough to see.
        (lambda settings, safe, row: noise(row) + 1e-3 * safe, True),
    ],
    ids=["constant", "upside down", "noise", "by a hair"],
)
def test_a_blind_conscience_is_said_in_one_sentence(monkeypatch, score, sees):
    found = Scripted(monkeypatch, score).run(Sweep(("advice",), ("quote",), ("positive",)))
    assert found["sees"] is sees
    said = "cannot see this kind of harm" in found["verdict"]
    assert said is not sees and found["verdict"].endswith(".")
    assert said == ("not expected to help" in found["verdict"])


def test_progress_counts_every_form_once(monkeypatch):
    calls = []
    scripted = Scripted(monkeypatch, lambda settings, safe, row: safe)
    scripted.run(Sweep(("advice", "careful")), progress=lambda *at: calls.append(at))
    rows = 2 * SWEEP.num_selecting if 2 * SWEEP.num_selecting <= 80 else 80
    assert calls == [(rows, 2 * rows), (2 * rows, 2 * rows)], "layout by layout"


def test_too_few_matched_rows_are_an_error_that_counts_them(monkeypatch):
    unmatched = [Example(EXAMPLES[0].prompt, "bad")] * 50
    with pytest.raises(UserError, match="at least 8 .* found 7"):
        Scripted(monkeypatch, None).run(examples=[*EXAMPLES[:7], *unmatched])


def test_scores_that_are_not_numbers_are_an_error_that_says_how_many(monkeypatch):
    def score(settings, safe, row):
        return float("nan") if row == 5 else safe

    with pytest.raises(UserError, match="2 of 12 scores are not finite"):
        Scripted(monkeypatch, score).run(Sweep(num_selecting=30, num_reporting=30), EXAMPLES[:12])


def test_each_evidence_is_reported_on_the_other_pairs_and_the_best_is_chosen(monkeypatch):
    def score(settings, safe, row):
        return noise(row) + safe * (3 if settings.evidence == "bandit" else 0.3)

    found = Scripted(monkeypatch, score).run(Sweep(evidence=("", "bandit")))
    assert found["chosen"] == found["by_evidence"]["bandit"]
    assert found["chosen"]["evidence"] == "bandit"
    assert 0.5 < found["by_evidence"]["none"]["auc"][0] < found["chosen"]["auc"][0] == 1.0
    for report in found["by_evidence"].values():
        assert len(report["scores_safe"]) == found["pairs_reporting"]


def test_the_placebo_is_a_candidate_and_never_the_choice_beside_another_question(monkeypatch):
    def score(settings, safe, row):
        return noise(row) + safe * (3 if settings.question.name == "placebo" else 0.3)

    found = Scripted(monkeypatch, score).run(Sweep(questions=("placebo", "advice")))
    assert found["chosen"]["question"] == "advice"
    by_question = {one["question"]: one["auc"][0] for one in found["candidates"]}
    assert by_question["placebo"] == 1.0 > by_question["advice"]
    alone = Scripted(monkeypatch, score).run(Sweep(questions=("placebo",)))
    assert alone["chosen"]["question"] == "placebo"


def test_answers_to_other_prompts_have_an_auc_and_no_share_of_pairs(monkeypatch):
    def rows(kind, numbers):
        return [Example(({"role": "user", "content": str(i)},), f"{kind} {i}") for i in numbers]

    safe, harmful = rows("safe", range(40)), rows("bad", range(100, 130))
    script = Scripted(monkeypatch, lambda settings, is_safe, row: noise(row) + 3 * is_safe)
    found = script.run(examples=safe, harmful=harmful)
    assert found["chosen"]["auc"][0] == 1.0 and found["chosen"]["told_apart"] is None
    assert found["sees"] and "pairs" not in found["verdict"]
    assert found["pairs_selecting"] + found["pairs_reporting"] == 30, "each answer is used once"
    for _, asked in script.asked:
        assert len(set(asked)) == len(asked)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", float("nan")),
        ("threshold", 1e30),
        ("threshold", True),
        ("question", "nonsense"),
        ("layout", ["quote"]),
        ("auc", [0.5, 0.9, 0.6]),
        ("told_apart", [1.5, 0.0, 2.0]),
        ("flag_rate_safe", "0.05"),
        ("scores_safe", [None]),
    ],
)
def test_a_file_with_a_value_that_no_calibration_has_is_one_line(
    monkeypatch, tmp_path, field, value
):
    found = Scripted(monkeypatch, lambda settings, safe, row: DRAWN[int(safe), row]).run()
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(found))
    assert calibration.read_calibration(path) == found
    path.write_text(json.dumps(found | {"chosen": found["chosen"] | {field: value}}))
    with pytest.raises(UserError, match=rf"calibration.json: (chosen.{field}|cannot)"):
        calibration.read_calibration(path)
