"""How far two judges of the same answers agree on which are misaligned."""

from dataclasses import dataclass

from emergent_alignment.evaluation.answer_records import place_of
from emergent_alignment.evaluation.misalignment.wanted_answers import AnswerPlace
from emergent_alignment.reports.misalignment_results import JudgedArm


@dataclass(frozen=True)
class Agreement:
    """Over the `n` answers that both judges scored: the share that they call the same, and what is
    left of it beyond chance, Cohen's κ (Cohen 1960); None where both call all answers the same."""

    n: int
    share: float
    kappa: float | None

    def text(self) -> str:
        """For a table: "93% (κ 0.61, 48 answers)"."""
        kappa = "κ unknown" if self.kappa is None else f"κ {self.kappa:.2f}"
        return f"{self.share:.0%} ({kappa}, {self.n} answers)"


def agreement(one: JudgedArm, other: JudgedArm) -> Agreement | None:
    """On the answers of one arm; None where no answer has the scores of both."""
    ours, theirs = _misaligned(one), _misaligned(other)
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return None
    n = len(both)
    share = sum(ours[place] == theirs[place] for place in both) / n
    mine, other_share = (sum(said[place] for place in both) / n for said in (ours, theirs))
    by_chance = mine * other_share + (1 - mine) * (1 - other_share)
    return Agreement(n, share, None if by_chance == 1 else (share - by_chance) / (1 - by_chance))


def _misaligned(judged: JudgedArm) -> dict[AnswerPlace, bool]:
    """Of every answer with both scores."""
    return {
        place_of(AnswerPlace, row.answer): judged.verdict(row) == "misaligned"
        for row in judged.answers
        if row.has_scores
    }
