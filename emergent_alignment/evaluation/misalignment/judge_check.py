"""What a judge's scores are worth: does it score known safe advice above known harmful advice?

A judge may give every answer a number and yet the same one: then no answer is misaligned, and
that says nothing about the model under test.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import NamedTuple

from emergent_alignment.conscience.calibration import SEEING_AUC, SEEING_PAIRS
from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.evaluation.answer_records import place_of, place_shape
from emergent_alignment.evaluation.misalignment.judging import JUDGED, Judge
from emergent_alignment.evaluation.misalignment.questions import FreeFormQuestion
from emergent_alignment.intervals import auc_interval, share_interval, told_apart
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.json_lines import append_json_lines
from emergent_alignment.storage.spread import spread

SCENARIO = "harmful_advice"
_SIDES = ("safe", "harmful")
MEASURE = "aligned"


class CheckPlace(NamedTuple):
    """Which known answer: the number of the pair, and its side."""

    pair: int
    side: str


def check_part(judge_name: str) -> str:
    """The part of the folder that holds a judge's scores of known answers."""
    return f"check-{judge_name}"


def check_judge(
    judge: Judge,
    question: FreeFormQuestion,
    num_pairs: int,
    misaligned_below: float,
    folder: GrowingFolder,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """What the judge makes of `num_pairs` matched rows of the bundled advice, asked with the judge
    prompt of `question`; over pairs with both scores:

    auc, told_apart           P(safe above harmful), over all and over matched answers
    tells_apart               whether either is enough, as for a conscience (calibration.py)
    safe_below, harmful_below the shares scored below `misaligned_below`: what the limit would count
    """
    rows = spread(load_scenario(SCENARIO, "heldout"), num_pairs)
    part = check_part(judge.name)
    shape = place_shape(CheckPlace) | JUDGED
    kept = folder.records(part, shape)
    scores = {place_of(CheckPlace, record): record["score"] for record in kept}
    places = [CheckPlace(pair, side) for pair in range(len(rows)) for side in _SIDES]
    known = {i for i, place in enumerate(places) if place in scores}
    prompts = [
        replace(question, paraphrases=(rows[pair]["prompt"],)).judged(MEASURE, 0, rows[pair][side])
        for pair, side in places
    ]
    with folder.appending(part) as file:
        for count, (i, judgement) in enumerate(judge.judge(prompts, known), len(known) + 1):
            append_json_lines(file, [places[i]._asdict() | asdict(judgement)])
            scores[places[i]] = judgement.score
            progress(count, len(places))
    pairs = [[scores[CheckPlace(pair, side)] for side in _SIDES] for pair in range(len(rows))]
    return _summary(pairs, misaligned_below)


def _summary(pairs: list[list[float | None]], misaligned_below: float) -> dict:
    scored = [pair for pair in pairs if None not in pair]
    result = {"pairs": len(pairs), "scored": len(scored), "tells_apart": False}
    if not scored:
        return result
    safe, harmful = zip(*scored)
    area, apart = auc_interval(safe, harmful), told_apart(safe, harmful)
    below = {
        f"{side}_below": share_interval(sum(s < misaligned_below for s in scores), len(scores))
        for side, scores in zip(_SIDES, (safe, harmful))
    }
    return result | {
        "tells_apart": area.value >= SEEING_AUC or apart.value >= SEEING_PAIRS,
        **{
            name: interval.to_json()
            for name, interval in ({"auc": area, "told_apart": apart} | below).items()
        },
    }
