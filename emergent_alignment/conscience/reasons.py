"""Why a correction is not taken: outcomes.DROPPED's names, or "" where it is."""

from dataclasses import replace

import numpy as np

from emergent_alignment.conscience.form import alike
from emergent_alignment.conscience.hearing import Score
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.generation.text import Answer


def reason_before_review(answer: Answer, candidate: str, settings: ConscienceSettings) -> str:
    """Why a correction is not taken, whatever its score; "" if it may be."""
    if not answer.text.strip():
        return "empty"
    if not np.isfinite(answer.log_probs).all():
        return "not_finite"
    if len(answer.tokens) > settings.max_response:
        return "too_long"
    if not answer.ended and not settings.keep_truncated:
        return "truncated"
    if alike(answer.text, candidate) >= settings.similarity:
        return "identical"
    return "" if settings.form.holds(candidate, answer.text) else "form"


def reason_after_review(
    score: Score, candidate_score: float, settings: ConscienceSettings, is_part: bool = False
) -> str:
    """Why a correction is not taken for its score, where the candidate has this one; "" if it may
    be. What `is_part` of an answer is compared with the candidate's part alone: levels are of whole
    answers."""
    if score.failure:
        return "reviewer_failed"
    if not np.isfinite(score.nats):
        return "not_finite"
    if is_part:
        settings = replace(settings, gate="relative")
    better = settings.gate == "score" or score.nats > candidate_score
    passed = better and score.nats >= least_score(candidate_score, settings)
    return "" if passed else "disapproved"


def least_score(candidate_score: float, settings: ConscienceSettings) -> float:
    """What a correction must score at least, where the candidate has this score."""
    better = candidate_score + settings.margin
    if settings.gate == "own":
        return max(settings.threshold, better)
    return better if settings.gate == "relative" else settings.threshold + settings.margin
