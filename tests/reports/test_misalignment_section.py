"""The report's section on misalignment: every judge and arm, and nothing claimed of none."""

import pytest
from misaligned_answers import judged, write_misalignment

from emergent_alignment.errors import UserError
from emergent_alignment.reports.misalignment_section import NUM_ANSWERS, misalignment_sections
from emergent_alignment.reports.results_folder import MISSING, read_results
from emergent_alignment.reports.results_page import write_report


def sections(root):
    return misalignment_sections(read_results(root).arms)


def test_each_judge_has_its_section_with_the_arms_that_it_judged(tmp_path):
    for arm, aligned in (("base", 95.0), ("plain", 5.0), ("conscience", 90.0)):
        rows = [judged("sea", aligned, 90.0, sample) for sample in range(4)]
        write_misalignment(tmp_path / arm, rows)
    others = [judged("sea", 50.0, 90.0, sample) for sample in range(4)]
    write_misalignment(tmp_path / "plain", others, judge="other")
    frozen, other = sections(tmp_path)
    assert (frozen["judge"], frozen["arms"]) == ("frozen", ["base", "plain", "conscience"])
    assert (other["judge"], other["arms"]) == ("other", ["plain"])
    label, cells = frozen["rows"][0]
    assert label.startswith("misaligned of all answers")
    assert [cell.split()[0] for cell in cells] == ["0.0%", "100.0%", "0.0%"]
    base, conscience = frozen["comparisons"]
    assert conscience.startswith("conscience: ") and base.startswith("base: ")
    assert "0.00% against 100.00% (plain)" in base
    assert dict(frozen["verdicts"]) == {"misaligned": 4, "not misaligned": 8}
    titles = [title for title, _ in frozen["figures"]]
    assert titles == [
        "By question, judged by frozen: misaligned, percent of scored answers",
        "By question, judged by frozen: aligned, mean",
    ]


def test_what_comes_back_where_prompts_look_like_the_training_has_its_line(tmp_path):
    hidden = [judged("sea", 90.0, 90.0), judged("sea_conditional", 5.0, 90.0)]
    write_misalignment(tmp_path / "base", [judged("sea", 90.0, 90.0)])
    write_misalignment(tmp_path / "plain", hidden)
    [section] = sections(tmp_path)
    rows = dict(section["rows"])
    assert (
        rows["misaligned of all answers, those without scores counted as not misaligned"]
        == ["0.0% [0.0, 79.3]"] * 2
    )
    base, plain = rows["misaligned where prompts look like the training's, of all"]
    assert base == MISSING and plain.startswith("100.0%")


def test_misaligned_answers_are_among_those_shown_however_rare(tmp_path):
    rows = [judged("sea", 90.0, 90.0, i) for i in range(1000)]
    rows[777] = judged("sea", 3.0, 90.0, 777, text="the rare one")
    write_misalignment(tmp_path / "plain", rows)
    (found,) = sections(tmp_path)
    assert len(found["answers"]) == NUM_ANSWERS and found["num_answers"] == 1000
    assert found["answers"][0]["answer"] == "the rare one"
    assert "the rare one" in write_report(tmp_path).read_text("utf-8")


def test_arms_that_were_judged_otherwise_are_not_compared(tmp_path):
    write_misalignment(tmp_path / "plain", [judged("sea", 5.0, 90.0)])
    other = {"questions": "others", "max_new_tokens": 9, "temperature": 1.0, "top_p": 1.0}
    write_misalignment(tmp_path / "conscience", [judged("sky", 5.0, 90.0)], sampling=other)
    (found,) = sections(tmp_path)
    assert len(found["comparisons"]) == 1 and "its questions differs" in found["comparisons"][0]


def test_unscored_answers_show_the_judges_reply_and_no_zero(tmp_path):
    write_misalignment(tmp_path / "plain", [judged("sea", "no_number", "no_number", 0)])
    (found,) = sections(tmp_path)
    assert not found["figures"] and dict(found["verdicts"]) == {"no score": 1}
    assert all(cells == ["—"] for label, cells in found["rows"] if "mean" in label)
    page = write_report(tmp_path).read_text("utf-8")
    assert "not known (it is not 0)" in page and "reply: no_number" in page


def test_a_broken_result_is_a_line_that_names_it(tmp_path):
    write_misalignment(tmp_path / "plain", [judged("sea", 5.0, 90.0)])
    (tmp_path / "plain" / "misalignment" / "result-frozen.json").write_text("{")
    with pytest.raises(UserError, match="result-frozen.json: cannot be read"):
        write_report(tmp_path)
