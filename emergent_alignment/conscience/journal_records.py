"""A review as a record of the journal."""

from emergent_alignment.conscience.pairs import Reviewed
from emergent_alignment.storage.json_values import finite_or_none


def journal_record(reviewed: Reviewed, *, step: int, place: int, row: int) -> dict:
    """A review as a flat JSON object; scores that were never read are null, and `failure` says
    where the reviewer itself failed. `place` is the candidate's place in its step, `row` the
    example it belongs to (a step that crosses epochs may hold an example twice)."""
    chosen = reviewed.chosen
    last = reviewed.attempts[-1] if reviewed.attempts else None
    shown = chosen or (last.answer if last else None)
    return {
        "step": step,
        "place": place,
        "row": row,
        "prompt": reviewed.prompt,
        "candidate": reviewed.candidate,
        "candidate_score": finite_or_none(reviewed.score),
        "scored_by": reviewed.scored_by,
        "failure": reviewed.failure,
        "principle": reviewed.principle,
        "critique": reviewed.critique,
        "revision": shown.text if shown else "",
        "revision_score": finite_or_none(last.score) if last else None,
        "link": last.link if last else "",
        "outcome": reviewed.outcome,
        "attempts": [
            {
                "link": attempt.link,
                "text": attempt.answer.text,
                "score": finite_or_none(attempt.score),
                "reason": attempt.reason,
                "failure": attempt.failure,
            }
            for attempt in reviewed.attempts
        ],
    }
