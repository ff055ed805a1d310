"""Multiple choice of one model: score every option, keep the log-probs, add up."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.choices.competing import competing_log_probs
from emergent_alignment.evaluation.choices.items import Choice, choices_digest, load_choices
from emergent_alignment.evaluation.choices.rows import Asked, rows_of
from emergent_alignment.evaluation.choices.scores import best_is_first, pair_outcome, right_mass
from emergent_alignment.evaluation.settings import ChoicesSection, EvaluationConfig
from emergent_alignment.intervals import mean_interval, share_interval
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.json_lines import append_json_lines
from emergent_alignment.storage.json_values import plain
from emergent_alignment.storage.shapes import Number, Text
from emergent_alignment.storage.spread import spread_kinds
from emergent_alignment.training.state import fingerprint

CHOICES_FOLDER, CHOICES_RESULT, SCORED = "choices", "result.json", "scored"
OPTIONS, PAIRS = "options", "pairs"
_KEPT = {"name": Text(), "order": Number(0, 1, whole=True), "log_probs": [Number(high=0.01)]}


def chosen_items(settings: ChoicesSection) -> list[Choice]:
    """The items that config.choices names. Raises UserError for a file that cannot be used."""
    items = load_choices(settings.questions)
    topics = [item.topic for item in items]
    return spread_kinds(items, topics, settings.limit or len(items))


def evaluate_choices(
    config: EvaluationConfig,
    under_test: Setup,
    directory: Path,
    *,
    arm: str,
    overwrite: bool = False,
) -> tuple[dict, Path]:
    """Evaluate `under_test` as config.choices says, in `directory`/choices; returns the result
    and its file. Rows that an earlier call has scored are kept; `overwrite` drops those of
    another model or other items.

    Raises UserError for items that cannot be used, and for a folder of something else.
    """
    items, folder = chosen_items(config.choices), GrowingFolder(directory / CHOICES_FOLDER)
    model = under_test.model
    identity = {
        "model": model.source,
        "parameters": fingerprint(model.params),
        "adapters": fingerprint(model.adapters) if model.adapters is not None else None,
        "items": choices_digest(items),
    }
    folder.claim(SCORED, identity, overwrite=overwrite)
    rows = [row for item in items for row in rows_of(item, under_test.chat)]
    with in_force(under_test.mesh):
        scored = _scored(config, under_test, rows, folder, arm)
    result = {"arm": arm, **identity, "source": config.choices.questions} | summarize_choices(
        items, scored
    )
    write_json(folder.path / CHOICES_RESULT, result)
    return result, folder.path / CHOICES_RESULT


def _scored(
    config: EvaluationConfig, under_test: Setup, rows: list[Asked], folder: GrowingFolder, arm: str
) -> dict[tuple[str, int], np.ndarray]:
    """log-probs by (name, order); what the folder lacks is computed and appended."""
    scored = {
        (record["name"], record["order"]): np.array(record["log_probs"])
        for record in folder.records(SCORED, _KEPT)
    }
    computed = competing_log_probs(
        under_test.model,
        rows,
        known=set(scored),
        batch_size=config.choices.batch_size,
        bucket_tokens=config.data.bucket_tokens,
    )
    with progress(f"{arm}: choices") as meter, folder.appending(SCORED) as file:
        for row, log_probs in computed:
            if not np.isfinite(log_probs).all():
                raise UserError(f"{arm}: the model's log-probs of {row.name!r} are not finite")
            values = [float(value) for value in log_probs]
            record = {"name": row.name, "order": row.order, "log_probs": values}
            append_json_lines(file, [record])
            scored[row.name, row.order] = np.array(values)
            meter(len(scored), len(rows))
    return scored


def summarize_choices(items: list[Choice], scored: dict[tuple[str, int], np.ndarray]) -> dict:
    """Figures for tables, as plain JSON.

    options  MC1 (Wilson) and MC2 (bootstrap over questions) of questions with options, and what
             guessing would give: the expectation of both for options that are equally likely
    pairs    accuracy (Wilson; orders that disagree count half), agreed (the share in which both
             orders name the same answer), summed (by the sum of both margins), says_a (the
             share of all rows that say A), and the accuracy by topic
    items    what each single one gave
    """
    with_options = [item for item in items if not item.is_pair]
    pairs = [item for item in items if item.is_pair]
    result = {}
    if with_options:
        result[OPTIONS] = _summarize_options(with_options, scored)
    if pairs:
        result[PAIRS] = _summarize_pairs(pairs, scored)
    return plain(result)


def _summarize_options(items: list[Choice], scored: dict) -> dict:
    best = [best_is_first(scored[item.name, 0], len(item.right)) for item in items]
    mass = [right_mass(scored[item.name, 0], len(item.right)) for item in items]
    by_topic = _by_topic(items, best)
    return {
        "mc1": share_interval(sum(best), len(best)).to_json(),
        "mc2": mean_interval(mass).to_json(),
        "guessing": {
            "mc1": float(np.mean([1 / (1 + len(item.wrong)) for item in items])),
            "mc2": float(np.mean([len(item.right) / len(item.options) for item in items])),
        },
        "topics": {topic: share_interval(sum(v), len(v)).to_json() for topic, v in by_topic},
        "items": {item.name: [one, share] for item, one, share in zip(items, best, mass)},
    }


def _summarize_pairs(items: list[Choice], scored: dict) -> dict:
    outcomes = [pair_outcome(scored[item.name, 0], scored[item.name, 1]) for item in items]
    n = len(items)
    by_topic = _by_topic(items, [outcome.credit for outcome in outcomes])
    return {
        "accuracy": share_interval(sum(one.credit for one in outcomes), n).to_json(),
        "agreed": share_interval(sum(one.agreed for one in outcomes), n).to_json(),
        "summed": share_interval(sum(one.summed_credit for one in outcomes), n).to_json(),
        "says_a": share_interval(sum(one.num_a for one in outcomes), 2 * n).to_json(),
        "topics": {topic: share_interval(sum(v), len(v)).to_json() for topic, v in by_topic},
        "items": {item.name: list(one.margins) for item, one in zip(items, outcomes)},
    }


def _by_topic(items: list[Choice], values: list[float]) -> list[tuple[str, list[float]]]:
    topics: dict[str, list[float]] = defaultdict(list)
    for item, value in zip(items, values):
        topics[item.topic].append(value)
    return list(topics.items())
