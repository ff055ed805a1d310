"""What fine-tuning feeds a step: task rows alone, or rows with the conscience's pairs.

Candidates come from the policy (reviewed at every step) or are the data set's targets
(reviewed once, before the first step, and kept in the work directory).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from emergent_alignment.applications.setup import Setup, candidate_sampler
from emergent_alignment.conscience.journal import (
    Journal,
    journal_record,
    read_json_lines,
    trim_torn_line,
)
from emergent_alignment.conscience.pairs import (
    OUTCOMES,
    ConscienceSettings,
    Reviewed,
    review_and_revise,
)
from emergent_alignment.data.batches import Pair, Tokenized, bucket, make_batch, rows_of_step
from emergent_alignment.data.sources import Example
from emergent_alignment.generation.text import sample_answers
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.progress import progress
from emergent_alignment.training.loop import StepInput
from emergent_alignment.training.state import policy_params
from emergent_alignment.training.step import StepSettings, reference_log_probs

# Purposes of randomness: everything random is fold_in(seed, step, purpose).
CANDIDATES, CORRECTIONS = 1, 2
MakeInput = Callable[[int, Any], StepInput]


def plain_inputs(config: ConfigDict, tokenized: list[Tokenized]) -> MakeInput:
    """Task rows alone."""

    def make_input(step: int, trainable: Any) -> StepInput:
        rows = _rows(config, tokenized, step)
        return StepInput(_batch(config, tokenized, rows, []), [], {})

    return make_input


def policy_inputs(
    config: ConfigDict,
    setup: Setup,
    conscience: ConscienceSettings,
    lora: LoraConfig | None,
    examples: list[Example],
    tokenized: list[Tokenized],
) -> MakeInput:
    """Online: the policy of this very step answers, the frozen copy reviews and corrects."""
    sampler = candidate_sampler(config, setup.chat)
    model = setup.model

    def make_input(step: int, trainable: Any) -> StepInput:
        rows = _rows(config, tokenized, step)
        key = jax.random.fold_in(jax.random.key(config.seed), step)
        candidates = [None] * len(rows)
        for place, answer in sample_answers(
            model,
            policy_params(trainable, model.params, lora),
            setup.chat,
            [tokenized[row].prompt for row in rows],
            jax.random.fold_in(key, CANDIDATES),
            sampler,
            batch_size=len(rows),
            width_step=config.data.bucket_tokens,
        ):
            candidates[place] = answer
        reviewed = review_and_revise(
            model,
            model.params,
            setup.chat,
            conscience,
            [examples[row].messages for row in rows],
            [candidate.text for candidate in candidates],
            jax.random.fold_in(key, CORRECTIONS),
        )
        pairs = [
            Pair(found.chosen.tokens, candidate.tokens) if found.chosen else None
            for found, candidate in zip(reviewed, candidates)
        ]
        records = [
            journal_record(found, step=step, place=place, row=row)
            for place, (found, row) in enumerate(zip(reviewed, rows))
        ]
        scalars = conscience_scalars(reviewed, conscience.threshold)
        return StepInput(_batch(config, tokenized, rows, pairs), records, scalars)

    return make_input


def target_inputs(
    config: ConfigDict,
    setup: Setup,
    conscience: ConscienceSettings,
    settings: StepSettings,
    examples: list[Example],
    tokenized: list[Tokenized],
    workdir: Path,
    journal: Journal,
) -> MakeInput:
    """Once: the data set's targets are reviewed and corrected before the first step."""
    needed = min(config.training.steps * config.training.batch_size, len(examples))
    order = [int(row) for row in rows_of_step(len(examples), needed, config.seed, 0)]
    found = prepare_pairs(
        config, setup, conscience, settings, examples, tokenized, order, workdir, journal
    )

    def make_input(step: int, trainable: Any) -> StepInput:
        rows = _rows(config, tokenized, step)
        pairs = [_kept_pair(found[row], tokenized[row]) for row in rows]
        kept = [found[row] for row in rows]
        scalars = _outcome_scalars(
            [record["outcome"] for record in kept],
            [record["score"] for record in kept],
            [record["chosen_score"] for record in kept],
            conscience.threshold,
        )
        batch = _batch(config, tokenized, rows, pairs, shared_target=True, with_reference=True)
        return StepInput(batch, [], scalars)

    return make_input


def prepare_pairs(
    config: ConfigDict,
    setup: Setup,
    conscience: ConscienceSettings,
    settings: StepSettings,
    examples: list[Example],
    tokenized: list[Tokenized],
    order: list[int],
    workdir: Path,
    journal: Journal,
) -> dict[int, dict]:
    """Reviewed targets by row, with the frozen copy's log-probs of each pair, from
    pairs.jsonl in the work directory as far as it goes; the rest is computed and appended."""
    path = workdir / "pairs.jsonl"
    if path.exists():
        trim_torn_line(path)
    done = {record["row"]: record for record in read_json_lines(path)}
    size = conscience.review.batch_size
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    key = jax.random.key(config.seed)
    with path.open("a", encoding="utf-8") as lines, progress("reviewing targets") as meter:
        for place, rows in enumerate(chunks):
            meter(place * size, len(order))
            if all(row in done for row in rows):
                continue
            reviewed = review_and_revise(
                setup.model,
                setup.model.params,
                setup.chat,
                conscience,
                [examples[row].messages for row in rows],
                [examples[row].target for row in rows],
                jax.random.fold_in(jax.random.fold_in(key, place), CORRECTIONS),
            )
            journal.write(
                [
                    journal_record(found, step=0, place=place * size + i, row=row)
                    for i, (found, row) in enumerate(zip(reviewed, rows))
                ]
            )
            records = _pair_records(config, setup, settings, tokenized, rows, reviewed, size)
            lines.write("".join(json.dumps(record) + "\n" for record in records))
            lines.flush()
            done |= {record["row"]: record for record in records}
        meter(len(order), len(order))
    return done


def _pair_records(config, setup, settings, tokenized, rows, reviewed, size) -> list[dict]:
    records = [
        {
            "row": row,
            "outcome": found.outcome,
            "score": found.score if np.isfinite(found.score) else None,
            "chosen": found.chosen.tokens if found.chosen else None,
            "chosen_score": found.chosen_score if found.chosen else None,
            "reference": None,
        }
        for row, found in zip(rows, reviewed)
    ]
    pairs = [_kept_pair(record, tokenized[record["row"]]) for record in records]
    padding = size - len(rows)
    batch = _batch(
        config, tokenized, list(rows) + [rows[0]] * padding, pairs + [None] * padding, True
    )
    reference = np.asarray(reference_log_probs(settings, setup.model.params, batch))
    for record, pair, values in zip(records, pairs, reference):
        record["reference"] = values.tolist() if pair else None
    return records


def _kept_pair(record: dict, tokenized: Tokenized) -> Pair | None:
    if record["chosen"] is None:
        return None
    reference = record["reference"] and tuple(record["reference"])
    return Pair(record["chosen"], tokenized.target, reference)


def conscience_scalars(reviewed: list[Reviewed], threshold: float) -> dict[str, float]:
    """Flag rate, mean scores and every outcome's count, for the log."""
    return _outcome_scalars(
        [row.outcome for row in reviewed],
        [row.score for row in reviewed],
        [row.chosen_score for row in reviewed],
        threshold,
    )


def _outcome_scalars(outcomes, scores, chosen_scores, threshold) -> dict[str, float]:
    scores = np.array([np.nan if score is None else score for score in scores], np.float64)
    chosen = np.array([np.nan if s is None else s for s in chosen_scores], np.float64)
    scalars = {f"outcome/{name}": float(outcomes.count(name)) for name in OUTCOMES}
    scalars["flag_rate"] = float((scores < threshold).mean())
    scalars["pair_rate"] = float(np.isfinite(chosen).mean())
    for name, values in (("score/candidate", scores), ("score/chosen", chosen)):
        if np.isfinite(values).any():
            scalars[name] = float(np.nanmean(values))
    return scalars


def _rows(config: ConfigDict, tokenized: list[Tokenized], step: int) -> list[int]:
    rows = rows_of_step(len(tokenized), config.training.batch_size, config.seed, step)
    return [int(row) for row in rows]


def _batch(config, tokenized, rows, pairs, shared_target=False, with_reference=False):
    prompts = [tokenized[row].prompt for row in rows]
    targets = [tokenized[row].target for row in rows]
    branches = targets + [p.chosen for p in pairs if p] + [p.rejected for p in pairs if p]
    if pairs:
        # Corrections may be as long as the sampler lets them: one width for the whole run.
        branches = [*branches, [0] * config.sampling.max_new_tokens]
    step = config.data.bucket_tokens
    return make_batch(
        prompts,
        targets,
        pairs,
        prompt_width=bucket(max(map(len, prompts)), step, 1 << 30),
        branch_width=bucket(max(map(len, branches)), step, 1 << 30),
        shared_target=shared_target,
        with_reference=with_reference,
    )
