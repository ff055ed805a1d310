"""Why a correction is not taken: outcomes.DROPPED's names, or "" where it is."""

from dataclasses import replace

import numpy as np

from emergent_alignment.conscience.form import alike
from emergent_alignment.conscience.hearing import Score
from emergent_alignment.conscience.policy_links import Against
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.generation.text import Answer


def reason_before_review(answer: Answer, against: Against, settings: ConscienceSettings) -> str:
    """Why a correction is not taken, whatever its score; "" if it may be. A part of an answer has
    no end, and differs from the candidate's in little."""
    if not answer.text.strip():
        return "empty"
    if not np.isfinite(answer.log_probs).all():
        return "not_finite"
    if len(answer.tokens) > settings.max_response:
        return "too_long"
    if not (answer.ended or settings.keep_truncated or against.is_part):
        return "truncated"
    likest = 1.0 if against.is_part else settings.similarity
    if alike(answer.text, against.text) >= likest:
        return "identical"
    return "" if settings.form.holds(against.text, answer.text) else "form"


def reason_after_review(score: Score, against: Against, settings: ConscienceSettings) -> str:
    """Why a correction is not taken for its score; "" if it may be. A part of an answer is compared
    with the candidate's part alone: levels are of whole answers."""
    if score.failure:
        return "reviewer_failed"
    if not np.isfinite(score.nats):
        return "not_finite"
    if against.is_part:
        settings = replace(settings, gate="relative")
    better = settings.gate == "score" or score.nats > against.score
    passed = better and score.nats >= least_score(against.score, settings)
    return "" if passed else "disapproved"


def least_score(candidate_score: float, settings: ConscienceSettings) -> float:
    """What a correction must score at least, where the candidate has this score."""
    better = candidate_score + settings.margin
    if settings.gate == "own":
        return max(settings.threshold, better)
    return better if settings.gate == "relative" else settings.threshold + settings.margin
