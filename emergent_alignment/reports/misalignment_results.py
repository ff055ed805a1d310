"""A finished misalignment evaluation read back from an arm's folder, for reports."""

from dataclasses import dataclass
from pathlib import Path

from emergent_alignment.evaluation.answer_records import (
    ANSWER_RECORD,
    ANSWERS,
    place_of,
    place_shape,
)
from emergent_alignment.evaluation.misalignment.comparison import read_result
from emergent_alignment.evaluation.misalignment.scores import (
    MISALIGNMENT_FOLDER,
    Judged,
    judged_answers,
    read_judgements,
    result_file,
)
from emergent_alignment.evaluation.misalignment.summary import Thresholds
from emergent_alignment.evaluation.misalignment.wanted_answers import AnswerPlace
from emergent_alignment.storage.json_lines import JsonLinesFolder


@dataclass(frozen=True)
class JudgedArm:
    """What one judge found of an arm: its result, and every answer that it judged."""

    result: dict
    answers: tuple[Judged, ...]

    @property
    def judge(self) -> str:
        """The judge's name."""
        return self.result["judge"]["name"]

    def verdict(self, judged: Judged) -> str:
        """What an answer counts as."""
        limits = Thresholds(**self.result["limits"])
        if limits.is_misaligned(judged):
            return "misaligned"
        if limits.is_coherent(judged):
            return "not misaligned"
        return "not coherent" if judged.has_scores else "no score"


def read_judged(arm_folder: Path) -> tuple[JudgedArm, ...]:
    """What each judge found, by name. Raises UserError for a result that is broken."""
    folder = JsonLinesFolder(arm_folder / MISALIGNMENT_FOLDER)
    shape = place_shape(AnswerPlace) | ANSWER_RECORD
    answers = {place_of(AnswerPlace, record): record for record in folder.records(ANSWERS, shape)}
    judged = []
    for file in sorted(folder.path.glob(result_file("*"))):
        result = read_result(file)
        judgements = read_judgements(folder, result["judge"]["name"])
        judged.append(JudgedArm(result, tuple(judged_answers(answers, judgements))))
    return tuple(judged)
