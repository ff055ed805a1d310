"""What a run's log says of its conscience, in sentences, each with what it suggests. NumPy alone:
training's end and the reports read it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

_Metrics = Sequence[Mapping[str, float | None]]
_Journal = Sequence[Mapping]

_LATE = 0.2  # what has not moved after this share of the steps may not be moving at all
_FEW = 4  # values that are too few to speak of


def diagnosed(metrics: _Metrics, journal: _Journal = (), weight: float = 1.0) -> list[str]:
    """What is to be said of a run, by its steps in order, the records of its journal, and λ, where
    it was not moved."""
    said = (say(metrics) for say in _OF_METRICS)
    return [s for s in (*said, _strength(metrics, weight), _repeats(journal)) if s]


def _values(metrics: _Metrics, name: str) -> np.ndarray:
    values = [row.get(name) for row in metrics]
    return np.array([value for value in values if value is not None], np.float64)


def _mean(metrics: _Metrics, name: str) -> float | None:
    values = _values(metrics, name)
    return float(values.mean()) if values.size else None


def _last(metrics: _Metrics, name: str) -> float | None:
    """The mean of the last fifth, at least of one value."""
    values = _values(metrics, name)
    return float(values[-max(values.size // 5, 1) :].mean()) if values.size else None


def _difference(metrics: _Metrics) -> str:
    likeness, ratio = _mean(metrics, "pairs/likeness"), _mean(metrics, "pairs/length_ratio")
    kept = _mean(metrics, "pairs/form_kept")
    if likeness is None or ratio is None:
        return ""
    apart = likeness < 0.3 or not 0.7 <= ratio <= 1.4 or (kept is not None and kept < 0.8)
    form = "" if kept is None else f", {kept:.0%} of them keep the form"
    figures = f"likeness {likeness:.2f}, length ratio {ratio:.2f}{form}"
    if not apart:
        return f"The two answers of pairs are alike ({figures}): little but the score differs."
    return (
        f"The two answers of pairs differ in more than the score ({figures}): they teach style, "
        "length and task, too, and may only brake; see conscience.chain (fork, best) and "
        "conscience.keeps."
    )


def _strength(metrics: _Metrics, weight: float) -> str:
    values = [
        row["pair_strength"] * (row.get("weight/alignment_loss") or weight)
        for row in metrics
        if row.get("pair_strength")
    ]
    if not values:
        return ""
    strength = float(np.mean(values))
    figure = f"A pair's token weighs {strength:.2g} of a target's"
    if strength < 0.3:
        return f"{figure}: the task decides nearly alone; raise loss.alignment_weight."
    if strength > 16:
        return f"{figure}: the pairs may drown the task; lower loss.alignment_weight."
    return f"{figure}."


def _cosine(metrics: _Metrics) -> str:
    cosine = _mean(metrics, "gradient_cosine")
    if cosine is None:
        return ""
    pull = "against each other" if cosine < -0.1 else "together" if cosine > 0.1 else "side by side"
    return f"The gradients of task and alignment pull {pull} (mean cosine {cosine:.2f})."


def _watched(metrics: _Metrics) -> str:
    margins = _values(metrics, "watched/margin_moved")
    safe = _last(metrics, "watched/safe_moved")
    if margins.size < 2 or safe is None:
        return ""
    moved = float(margins[-1])
    if moved < -0.5:
        said = f"The margin of fixed held-out pairs fell by {-moved:.1f} nats: harm is learnt."
    elif abs(moved) <= 0.5:
        said = f"The margin of fixed held-out pairs has not moved ({moved:+.1f} nats)."
    else:
        said = f"The margin of fixed held-out pairs rose by {moved:.1f} nats."
    if safe < -5 and moved > 0:
        said += f" Their safe answers fell, too ({safe:.0f} nats): only the difference is learnt."
    return said


def _scores(metrics: _Metrics) -> str:
    samples, frozen = _last(metrics, "score/samples"), _last(metrics, "score/frozen")
    if samples is None or frozen is None:
        return ""
    where = "below" if samples < frozen else "no worse than"
    return (
        f"In the end the policy's samples score {samples:.2f}, {where} the frozen copy's own "
        f"answers ({frozen:.2f})."
    )


def _eyes(metrics: _Metrics) -> str:
    area = _last(metrics, "conscience/auc_current")
    if area is None or not 0.4 < area < 0.6:
        return ""
    return (
        "The conscience tells the policy's answers from the frozen copy's own no better than "
        f"chance (AUC {area:.2f}): nothing is wrong with them yet, or it cannot see it; read some."
    )


def _spent(metrics: _Metrics) -> str:
    spent = _last(metrics, "kl/samples")
    if spent is None:
        return ""
    return f"The policy has gone {spent:.2f} nats a token (KL) from the frozen copy."


def _flags(metrics: _Metrics) -> str:
    values = _values(metrics, "flag_rate")
    if values.size < _FEW:
        return ""
    late = float(values[int(values.size * (1 - _LATE)) :].mean())
    if late <= 0.02:
        return "Nothing is flagged any more: the pairs have ended, or the threshold is too low."
    if late >= 0.98:
        return "Everything is flagged: the threshold is too high, or gate=relative is meant."
    return ""


def _repeats(journal: _Journal) -> str:
    pairs = [
        (str(record.get("prompt")), record.get("candidate"), record.get("revision"))
        for record in journal
        if str(record.get("outcome", "")).startswith("revised")
    ]
    if not pairs:
        return ""
    share = 1 - len(set(pairs)) / len(pairs)
    return f"{share:.0%} of the pairs are repeats of former ones." if share > 0.1 else ""


_OF_METRICS: tuple[Callable[[_Metrics], str], ...] = (
    _difference, _cosine, _watched, _scores, _eyes, _spent, _flags
)  # fmt: skip
