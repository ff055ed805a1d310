"""Which answers an evaluation wants, and what is asked for each."""

from typing import NamedTuple

from emergent_alignment.data.messages import Message
from emergent_alignment.evaluation.misalignment.questions import FreeFormQuestion


class AnswerPlace(NamedTuple):
    """Which answer: the question's name, the number of its wording, the number of the sample."""

    question: str
    paraphrase: int
    sample: int


def wanted(questions: list[FreeFormQuestion], samples: int) -> dict[AnswerPlace, list[Message]]:
    """Every answer's place and conversation: `samples` to each wording, 0 for as many as the file
    says."""
    return {
        AnswerPlace(question.name, paraphrase, sample): question.messages(paraphrase)
        for question in questions
        for paraphrase in range(len(question.paraphrases))
        for sample in range(samples or question.samples)
    }
