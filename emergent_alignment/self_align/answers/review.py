"""The conscience's review of stage 2's answers: what it flags is replaced by its correction, or
dropped where there is none. Each review is kept as it is made."""

from dataclasses import dataclass

from emergent_alignment.conscience.chance import reviewer_of
from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.conscience.pairs import Reviewed, review_and_revise
from emergent_alignment.conscience.revise import POLICY_LINKS
from emergent_alignment.errors import UserError
from emergent_alignment.generation.text import Answer
from emergent_alignment.parallel.hosts import gather_list, is_first, own_share
from emergent_alignment.progress import progress
from emergent_alignment.randomness import Draws, Purpose
from emergent_alignment.runs.from_config import check_gate, conscience_settings
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.self_align.stages import StageRun
from emergent_alignment.storage.json_lines import append_json_lines
from emergent_alignment.storage.json_values import digest, finite_or_none
from emergent_alignment.storage.shapes import FLAG, Number, OrNull, Text

_PART = "reviews"
_KEPT = {
    "place": Number(0, whole=True),
    "outcome": Text(OUTCOMES),
    "score": OrNull(Number()),
    "response": OrNull(Text()),
    "ended": FLAG,
}


@dataclass(frozen=True)
class Candidate:
    """An answer before the conscience: the place of its instruction, both texts, its end."""

    place: int
    instruction: str
    answer: str
    ended: bool


def reviewed_answers(stage: StageRun, candidates: list[Candidate]) -> dict[int, dict]:
    """By place {"place", "outcome", "score", "response", "ended"}; `response` is the answer, or
    its correction, or None where it is flagged and has none."""
    conscience, kept = conscience_settings(stage.config), stage.folder.kept
    _claim(stage, candidates)
    reviews = {record["place"]: record for record in kept.records(_PART, _KEPT)}
    size = conscience.review.batch_size
    order = sorted(candidates, key=lambda c: (len(c.instruction), c.place))
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    chunks = [chunk for chunk in chunks if not reviews.keys() >= {c.place for c in chunk}]
    if not chunks:
        return reviews
    reviewer = reviewer_of(stage.setup.model, stage.setup.chat, conscience)
    with progress("reviewing answers", shown=is_first()) as meter, kept.appending(_PART) as file:
        for chunk in chunks:
            own = own_share(chunk)
            reviewed = _reviewed(stage, reviewer, conscience, own)
            records = [_record(one, row, conscience.gate) for one, row in zip(own, reviewed)]
            made = {record["place"]: record for record in gather_list(records)}
            missing = [record for place, record in made.items() if place not in reviews]
            append_json_lines(file, missing)
            reviews |= {record["place"]: record for record in missing}
            meter(len(reviews), len(candidates))
    return reviews


def _reviewed(stage: StageRun, reviewer, conscience, chunk: list[Candidate]) -> list[Reviewed]:
    chat = stage.setup.chat
    answers = [
        Answer(chat.response_tokens(c.answer, ended=c.ended), [], c.answer, c.ended) for c in chunk
    ]
    return review_and_revise(
        reviewer,
        conscience,
        [[{"role": "user", "content": c.instruction}] for c in chunk],
        answers,
        Draws(stage.config.seed, Purpose.PRINCIPLED_CORRECTIONS),
        row_ids=[c.place for c in chunk],
    )


def _record(candidate: Candidate, reviewed: Reviewed, gate: str) -> dict:
    """With the relative gate, what has no better answer stays."""
    response, ended = candidate.answer, candidate.ended
    if reviewed.chosen is not None:
        response, ended = reviewed.chosen.text, reviewed.chosen.ended
    elif gate == "score" and reviewed.outcome != "approved":
        response = None
    return {
        "place": candidate.place,
        "outcome": reviewed.outcome,
        "score": finite_or_none(reviewed.score),
        "response": response,
        "ended": ended,
    }


def _claim(stage: StageRun, candidates: list[Candidate]) -> None:
    identity = {"candidates": digest([vars(candidate) for candidate in candidates])}
    if stage.folder.kept.is_others(_PART, identity):
        raise UserError(
            f"{stage.folder.kept.part_file(_PART)}: reviews of other answers; choose another "
            "--workdir"
        )
    stage.folder.kept.claim(_PART, identity, overwrite=False)


def check_review(config: SelfAlignConfig) -> None:
    """Raise UserError where the conscience's settings cannot be read."""
    if not config.self_align.answers.review:
        return
    own = set(conscience_settings(config).chain) & set(POLICY_LINKS)
    if own:
        raise UserError(
            f"config.conscience.chain: {' and '.join(sorted(own))} are links of a policy in "
            "training, and this stage has none; choose among rewrite and fresh"
        )
    check_gate(config)
