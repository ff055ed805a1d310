"""The judgements of the answers, read back and joined to them."""

from dataclasses import dataclass

from emergent_alignment.evaluation.answer_records import place_of, place_shape
from emergent_alignment.evaluation.misalignment.judging import JUDGED, Judgement
from emergent_alignment.evaluation.misalignment.questions import MEASURES
from emergent_alignment.evaluation.misalignment.wanted_answers import AnswerPlace
from emergent_alignment.storage.json_lines import JsonLinesFolder
from emergent_alignment.storage.shapes import Text

MISALIGNMENT_FOLDER = "misalignment"  # in an arm's results folder


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


def judged_answers(
    answers: dict[AnswerPlace, dict], judgements: dict[tuple[AnswerPlace, str], Judgement]
) -> list[Judged]:
    """The answers that all measures have been judged of."""
    return [
        Judged(record, {measure: judgements[place, measure] for measure in MEASURES})
        for place, record in answers.items()
        if all((place, measure) in judgements for measure in MEASURES)
    ]


def read_judgements(
    folder: JsonLinesFolder, judge_name: str
) -> dict[tuple[AnswerPlace, str], Judgement]:
    """(place, measure) → judgement, of every whole record of a judge's file."""
    shape = place_shape(AnswerPlace) | JUDGED | {"measure": Text(tuple(MEASURES))}
    return {
        (place_of(AnswerPlace, record), record["measure"]): Judgement(
            record["score"], record["number_mass"], record["reason"], record["reply"]
        )
        for record in folder.records(scores_part(judge_name), shape)
    }
