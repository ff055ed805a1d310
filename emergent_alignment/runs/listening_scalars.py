"""What the log says of one step's listening, over all hosts' rows."""

import numpy as np
from jaxtyping import Float

from emergent_alignment.conscience.form import alike, has_form, length_ratio
from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.conscience.pairs import ConscienceSettings, Reviewed
from emergent_alignment.generation.text import Answer
from emergent_alignment.parallel.hosts import gather


def listening_scalars(
    reviewed: list[Reviewed],
    candidates: list[Answer],
    rejected: list[Answer],
    scores: list[float],
    conscience: ConscienceSettings,
) -> dict[str, float]:
    """Flag rate, scores, outcomes; the KL that was spent; and what the answers of pairs differ in.
    `rejected` is what of each candidate a pair rejects; `scores` are those of all that was
    sampled."""
    outcomes = outcome_scalars(
        [row.outcome for row in reviewed],
        [row.score for row in reviewed],
        [row.chosen_score for row in reviewed],
        conscience.threshold,
    )
    sampled = _mean(np.array(scores, np.float32))
    outcomes |= {} if np.isnan(sampled) else {"score/samples": sampled}
    return outcomes | _pair_scalars(reviewed, candidates, rejected, conscience)


def outcome_scalars(outcomes, scores, chosen_scores, threshold) -> dict[str, float]:
    """Flag rate, mean scores and every outcome's count over all hosts' rows."""
    rows = [
        [OUTCOMES.index(outcome), *(np.nan if value is None else value for value in values)]
        for outcome, *values in zip(outcomes, scores, chosen_scores)
    ]
    numbers, scores, chosen = gather(np.array(rows, np.float32)).reshape(-1, 3).T
    scalars = {f"outcome/{name}": float((numbers == i).sum()) for i, name in enumerate(OUTCOMES)}
    scalars["flag_rate"] = float((scores < threshold).mean())
    scalars["pair_rate"] = float(np.isfinite(chosen).mean())
    for name, values in (("score/candidate", scores), ("score/chosen", chosen)):
        if np.isfinite(values).any():
            scalars[name] = float(np.nanmean(values))
    return scalars


def _pair_scalars(
    reviewed, candidates, rejected, conscience: ConscienceSettings
) -> dict[str, float]:
    """Of pairs: how alike both answers are, the chosen one's length as a multiple of the
    rejected one's, and whether it keeps the form; `kl/samples` is Σ log π − log π₀ of
    the candidates, a token (k1 of KL(π ‖ π₀))."""
    rows = np.full((len(reviewed), 5), np.nan, np.float32)
    for row, review, candidate, other in zip(rows, reviewed, candidates, rejected):
        if review.chosen is None:
            continue
        texts = other.text, review.chosen.text
        row[:2] = alike(*texts), length_ratio(*texts)
        if conscience.form.keeps:
            row[2] = has_form(conscience.form.keeps, review.chosen.text)
        if review.reference is not None and len(candidate.log_probs):
            spent = candidate.log_probs.sum(dtype=np.float64) - review.reference[1]
            row[3:] = spent, len(candidate.tokens)
    alikeness, ratio, kept, spent, tokens = gather(rows).reshape(-1, 5).T
    scalars = {
        "pairs/likeness": _nanmean(alikeness),
        "pairs/length_ratio": _nanmean(ratio),
        "pairs/form_kept": _nanmean(kept),
        "kl/samples": float(np.nansum(spent) / np.nansum(tokens)) if np.nansum(tokens) else np.nan,
    }
    return {name: value for name, value in scalars.items() if np.isfinite(value)}


def _mean(values: Float[np.ndarray, "rows"]) -> float:
    return _nanmean(gather(values).reshape(-1))


def _nanmean(values: Float[np.ndarray, "rows"]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
