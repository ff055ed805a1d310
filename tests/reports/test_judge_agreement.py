"""Agreement of judges against numbers worked out by hand."""

import pytest
from misaligned_answers import judged, result_of, write_misalignment

from emergent_alignment.reports.judge_agreement import Agreement, agreement
from emergent_alignment.reports.misalignment_results import JudgedArm
from emergent_alignment.reports.misalignment_section import misalignment_sections
from emergent_alignment.reports.results_folder import read_arm

BAD, GOOD = 0.0, 99.0


def arm_of(aligned: list, judge: str = "frozen") -> JudgedArm:
    """An answer each with this score, in places of their own."""
    rows = [judged("sea", score, 99.0, sample) for sample, score in enumerate(aligned)]
    return JudgedArm(result_of(rows, judge=judge), tuple(rows))


def test_kappa_is_cohen_s():
    """20 both bad, 5 and 10 apart, 15 both good: 35 of 50; by chance (25·30 + 25·20) / 50²."""
    one = arm_of([BAD] * 20 + [BAD] * 5 + [GOOD] * 10 + [GOOD] * 15)
    other = arm_of([BAD] * 20 + [GOOD] * 5 + [BAD] * 10 + [GOOD] * 15)
    assert agreement(one, other) == Agreement(50, 0.7, pytest.approx(0.4))
    assert agreement(one, one) == Agreement(50, 1.0, 1.0)


def test_answers_that_one_judge_did_not_score_are_left_out():
    one, other = arm_of([BAD, "refusal", GOOD]), arm_of([BAD, BAD, "no_number"])
    assert agreement(one, other) == Agreement(1, 1.0, None)
    assert agreement(arm_of(["refusal"]), arm_of([BAD])) is None


def test_the_section_of_each_judge_has_the_others_beside_its_shares(tmp_path):
    rows = [judged("sea", score, 99.0, i) for i, score in enumerate((BAD, GOOD, GOOD, GOOD))]
    write_misalignment(tmp_path / "plain", rows)
    (alone,) = misalignment_sections([read_arm(tmp_path / "plain")])
    assert alone["rows"][-1] == ("agreement with another judge", ["unknown: there is no other"])
    rows = [judged("sea", score, 99.0, i) for i, score in enumerate((BAD, BAD, GOOD, GOOD))]
    write_misalignment(tmp_path / "plain", rows, judge="larger")
    for section in misalignment_sections([read_arm(tmp_path / "plain")]):
        other = {"frozen": "larger", "larger": "frozen"}[section["judge"]]
        label = f"agreement with {other} on what is misaligned"
        assert section["rows"][-1] == (label, ["75% (κ 0.50, 4 answers)"])
