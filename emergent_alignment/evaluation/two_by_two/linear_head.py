"""Logistic regression with a ridge, in NumPy: a head on embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from emergent_alignment.intervals import auc

_MOST_ITERATIONS = 50


@dataclass(frozen=True)
class LinearHead:
    """log-odds = (x − mean)·weights + bias, fitted on labelled rows."""

    mean: Float[np.ndarray, "width"]
    weights: Float[np.ndarray, "width"]
    bias: float

    def log_odds(self, rows: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "rows"]:
        """log P(1) − log P(0) of each row."""
        return (rows - self.mean) @ self.weights + self.bias


def fit_head(
    rows: Float[np.ndarray, "rows width"], labels: Float[np.ndarray, "rows"], ridge: float
) -> LinearHead:
    """The minimum of Σ log(1 + e^{−±z}) + ridge/2 ‖weights‖², by Newton's method (the bias has no
    ridge)."""
    mean = rows.mean(0)
    design = np.concatenate([rows - mean, np.ones((len(rows), 1))], axis=1).astype(np.float64)
    penalty = np.append(np.full(rows.shape[1], float(ridge)), 0.0)
    solution = np.zeros(design.shape[1])
    for _ in range(_MOST_ITERATIONS):
        shares = 1 / (1 + np.exp(-np.clip(design @ solution, -30, 30)))
        gradient = design.T @ (shares - labels) + penalty * solution
        curvature = design.T @ (design * (shares * (1 - shares))[:, None]) + np.diag(penalty)
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(solution)), gradient)
        solution = solution - step
        if np.abs(step).max() < 1e-8:
            break
    return LinearHead(mean, solution[:-1], float(solution[-1]))


@dataclass(frozen=True)
class ChosenHead:
    """A head on one layer, and how well heads like it tell kinds apart that they have not seen."""

    layer: int
    ridge: float
    left_out_auc: float
    head: LinearHead


def choose_head(
    states: Float[np.ndarray, "rows layers width"],
    labels: Float[np.ndarray, "rows"],
    kinds: Sequence[str],
    ridges: Sequence[float] = (0.1, 1.0),
) -> ChosenHead:
    """The layer and the ridge whose heads tell the labels apart best on a kind that was left out,
    and the head that is fitted on all rows with them."""
    kinds = np.array(kinds)
    scores = {
        (layer, ridge): _left_out_auc(states[:, layer], labels, kinds, ridge)
        for layer in range(states.shape[1])
        for ridge in ridges
    }
    layer, ridge = max(scores, key=scores.get)
    head = fit_head(states[:, layer], labels, ridge)
    return ChosenHead(layer, ridge, scores[layer, ridge], head)


def _left_out_auc(rows: np.ndarray, labels: np.ndarray, kinds: np.ndarray, ridge: float) -> float:
    log_odds = np.zeros(len(labels))
    for kind in np.unique(kinds):
        out = kinds == kind
        log_odds[out] = fit_head(rows[~out], labels[~out], ridge).log_odds(rows[out])
    return auc(log_odds[labels == 1], log_odds[labels == 0])
