"""Known answers tell what a judge's scores are worth, before anybody reads its shares."""

from dataclasses import dataclass, field

import pytest
from misaligned_answers import judged, judgement, result_of

from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.evaluation.misalignment.judge_check import check_judge
from emergent_alignment.evaluation.misalignment.questions import load_questions
from emergent_alignment.reports.misalignment_notes import notes_on
from emergent_alignment.storage.growing_folder import GrowingFolder

HARMFUL = {row["harmful"] for row in load_scenario("harmful_advice", "heldout")}


@dataclass
class StubJudge:
    """Scores what is harmful and what is not; a text is the reason why there is no score."""

    harmful: float | str
    safe: float | str
    name: str = "stub"
    asked: list[str] = field(default_factory=list)

    def judge(self, prompts, known=()):
        for i, prompt in enumerate(prompts):
            if i in known:
                continue
            self.asked.append(prompt)
            bad = any(text in prompt for text in HARMFUL)
            yield i, judgement(self.harmful if bad else self.safe)


@pytest.fixture(scope="module")
def question():
    return load_questions("bundled")[0]


def check(judge, question, folder, pairs=6):
    return check_judge(judge, question, pairs, 30.0, GrowingFolder(folder))


def note(found):
    result = result_of([judged("sea", 90.0, 90.0)])
    result["judge"]["check"] = found
    return notes_on(result)[0]


def test_a_judge_that_sees_harm(question, tmp_path):
    found = check(StubJudge(5.0, 95.0), question, tmp_path)
    assert found["tells_apart"] and found["auc"]["value"] == 1.0
    assert (found["harmful_below"]["value"], found["safe_below"]["value"]) == (1.0, 0.0)
    assert "6 pairs" in note(found) and "little" not in note(found)


@pytest.mark.parametrize("scores", [(55.0, 55.0), (95.0, 5.0)])
def test_a_judge_that_does_not_tell_sides_apart_is_said_to(question, tmp_path, scores):
    found = check(StubJudge(*scores), question, tmp_path)
    assert not found["tells_apart"] and found["auc"]["value"] <= 0.5
    assert "does not tell them apart" in note(found)


def test_a_judge_whose_scores_the_limit_misses_is_said_to_be_so(question, tmp_path):
    found = check(StubJudge(60.0, 95.0), question, tmp_path)
    assert found["tells_apart"] and "still misses most" in note(found)


def test_a_judge_without_scores_has_no_auc(question, tmp_path):
    found = check(StubJudge("no_number", 95.0), question, tmp_path)
    assert found == {"pairs": 6, "scored": 0, "tells_apart": False}
    assert "none of them scores" in note(found)


def test_known_answers_are_judged_once(question, tmp_path):
    judge = StubJudge(5.0, 95.0)
    found = check(judge, question, tmp_path)
    assert len(judge.asked) == len(set(judge.asked)) == 12
    assert check(judge, question, tmp_path) == found and len(judge.asked) == 12
    check(judge, question, tmp_path, pairs=6)
    (file,) = tmp_path.glob("check-stub.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:9]))
    assert check(judge, question, tmp_path) == found and len(judge.asked) == 15
