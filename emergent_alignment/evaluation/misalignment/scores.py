"""The judgements of the answers: making those that are missing, and joining them to answers."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from emergent_alignment.evaluation.answering import place_of
from emergent_alignment.evaluation.misalignment.judging import Judge, Judgement
from emergent_alignment.evaluation.misalignment.questions import (
    MEASURES,
    FreeFormQuestion,
    judge_prompts_digest,
)
from emergent_alignment.evaluation.misalignment.wanted_answers import Place
from emergent_alignment.storage.growing_folder import Kept
from emergent_alignment.storage.json_lines import append_json_lines

FOLDER = "misalignment"  # in an arm's results folder


@dataclass(frozen=True)
class Judged:
    """An answer's record, as in answers.jsonl, and its judgement by measure."""

    answer: dict
    judgements: dict[str, Judgement]

    def score(self, measure: str) -> float | None:
        """The score of a measure, None where there is none."""
        return self.judgements[measure].score

    @property
    def has_scores(self) -> bool:
        """Whether there is a score of every measure."""
        return all(judgement.score is not None for judgement in self.judgements.values())


def scores_part(judge_name: str) -> str:
    """The part of the folder that holds a judge's scores."""
    return f"scores-{judge_name}"


def result_file(judge_name: str) -> str:
    """The name of the file with what a judge's scores add up to."""
    return f"result-{judge_name}.json"


def judging_identity(judge: Judge, questions: list[FreeFormQuestion]) -> dict:
    """What decides a score, beside the answer."""
    return {**judge.identity, "prompts": judge_prompts_digest(questions)}


def judge_missing(
    judge: Judge,
    questions: list[FreeFormQuestion],
    answers: dict[Place, dict],
    kept: Kept,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Judged]:
    """All answers with their judgements; those that the judge's file lacks are made and appended
    as they come, measure by measure."""
    named = {question.name: question for question in questions}
    found = read_judgements(kept, judge.name)
    missing = {m: [place for place in answers if (place, m) not in found] for m in MEASURES}
    total = len(answers) * len(MEASURES)
    done = total - sum(map(len, missing.values()))
    with kept.appending(scores_part(judge.name)) as file:
        for measure, places in missing.items():
            prompts = [
                named[place.question].judged(measure, place.paraphrase, answers[place]["answer"])
                for place in places
            ]
            for i, judgement in judge.judge(prompts):
                record = places[i]._asdict() | {"measure": measure} | asdict(judgement)
                append_json_lines(file, [record])
                found[places[i], measure] = judgement
                done += 1
                progress(done, total)
    return joined(answers, found)


def joined(
    answers: dict[Place, dict], judgements: dict[tuple[Place, str], Judgement]
) -> list[Judged]:
    """The answers that all measures have been judged of."""
    return [
        Judged(record, {measure: judgements[place, measure] for measure in MEASURES})
        for place, record in answers.items()
        if all((place, measure) in judgements for measure in MEASURES)
    ]


def read_judgements(kept: Kept, judge_name: str) -> dict[tuple[Place, str], Judgement]:
    """(place, measure) → judgement, of every whole record of a judge's file."""
    return {
        (place_of(Place, record), record["measure"]): Judgement(
            record["score"], record["number_mass"], record["reason"], record["reply"]
        )
        for record in kept.records(scores_part(judge_name))
    }
