"""Having the answers judged: those that the folder has no judgement of, as they come."""

from collections.abc import Callable
from dataclasses import asdict

from emergent_alignment.evaluation.misalignment.judging import Judge
from emergent_alignment.evaluation.misalignment.questions import (
    MEASURES,
    FreeFormQuestion,
    judge_prompts_digest,
)
from emergent_alignment.evaluation.misalignment.scores import (
    Judged,
    judged_answers,
    read_judgements,
    scores_part,
)
from emergent_alignment.evaluation.misalignment.wanted_answers import AnswerPlace
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.json_lines import append_json_lines


def judging_identity(judge: Judge, questions: list[FreeFormQuestion]) -> dict:
    """What decides a score, beside the answer."""
    return {**judge.identity, "prompts": judge_prompts_digest(questions)}


def judge_missing(
    judge: Judge,
    questions: list[FreeFormQuestion],
    answers: dict[AnswerPlace, dict],
    folder: GrowingFolder,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Judged]:
    """All answers with their judgements; those that the judge's file lacks are made and appended
    as they come, measure by measure."""
    named = {question.name: question for question in questions}
    judgements, places = read_judgements(folder, judge.name), list(answers)
    total = len(places) * len(MEASURES)
    done = sum((place, measure) in judgements for place in places for measure in MEASURES)
    with folder.appending(scores_part(judge.name)) as file:
        for measure in MEASURES:
            known = {i for i, place in enumerate(places) if (place, measure) in judgements}
            prompts = [
                named[place.question].judged(measure, place.paraphrase, answers[place]["answer"])
                for place in places
            ]
            for i, judgement in judge.judge(prompts, known):
                record = places[i]._asdict() | {"measure": measure} | asdict(judgement)
                append_json_lines(file, [record])
                judgements[places[i], measure] = judgement
                done += 1
                progress(done, total)
    return judged_answers(answers, judgements)
