"""Training a reward model on preferences: with adapters by the Bradley–Terry loss on whole rows, or
its head alone on what a frozen backbone has read; and measuring it on held-out pairs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emergent_alignment.data.batches import Pair, make_batch
from emergent_alignment.data.buckets import Schedule, choose_buckets
from emergent_alignment.errors import UserError
from emergent_alignment.intervals import Interval, share_interval
from emergent_alignment.parallel.hosts import anywhere, is_first
from emergent_alignment.parallel.rows import own_rows
from emergent_alignment.progress import progress
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.runs.training_run import Run, Training, step_settings, train
from emergent_alignment.self_align.reinforcement.frozen_features import (
    FEATURES,
    feature_inputs,
    kept_features,
    standardised,
)
from emergent_alignment.self_align.reinforcement.preferences import (
    Preference,
    TokenPair,
    preferences_digest,
    token_pair,
)
from emergent_alignment.self_align.reinforcement.reward_model import (
    NO_TARGET,
    RewardModel,
    ends_of,
)
from emergent_alignment.self_align.reinforcement.reward_terms import REWARD
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.settings import changed
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.shapes import Number
from emergent_alignment.training.heads import Headed
from emergent_alignment.training.loop import MakeInput, StepInput

_RESULT = "reward_model.json"
_MEASURED = {
    "accuracy": {name: Number(0, 1) for name in ("value", "low", "high")},
    "mean": Number(),
    "deviation": Number(1e-30),
    "held_out": Number(1, whole=True),
}


def reward_config(config: SelfAlignConfig, num_pairs: int) -> SelfAlignConfig:
    """The config of the reward model's run: the main one, with what reinforcement.reward_model
    says."""
    wanted = config.self_align.reinforcement.reward_model
    size = min(wanted.batch_size, num_pairs)
    return changed(
        config,
        {
            "conscience.enabled": False,
            "training.batch_size": size,
            "training.steps": max(round(wanted.epochs * num_pairs / size), 1),
            "training.accumulation": 1,
            "optimizer.learning_rate": wanted.learning_rate,
        },
    )


def train_reward_model(
    config: SelfAlignConfig, setup: Setup, folder: Path, pairs: list[Preference], held_out: list
) -> tuple[RewardModel, dict]:
    """Train on `pairs` in a work directory `folder`, going on where a kill left it; measure on
    those `held_out`. Returns the model and what was measured, which lies beside the folder's
    checkpoints. Raises UserError where there are no pairs on one of the sides."""
    if not pairs or not held_out:
        raise UserError(
            f"config.self_align.reinforcement.preferences: {len(pairs)} pairs to train on and "
            f"{len(held_out)} held out are too few; ask for more, or change "
            "reward_model.held_out_share"
        )
    wanted = config.self_align.reinforcement.reward_model
    of_run = reward_config(config, len(pairs))
    setup = replace(setup, config=of_run)
    limits = of_run.data.max_prompt_tokens, of_run.data.max_response_tokens
    rows = [token_pair(one, setup.chat, *limits) for one in pairs]
    setup.model.config.check_row(
        max(len(row.prompt) + max(len(row.chosen), len(row.rejected)) for row in rows),
        "config.self_align.reinforcement.preferences: the longest prompt with its answer",
        "lower config.data.max_prompt_tokens or max_response_tokens",
    )
    digest = preferences_digest(pairs)
    train_it = _train_head if wanted.backbone == "frozen" else _train_whole
    trainable = train_it(of_run, setup, folder, rows, digest)
    model = RewardModel(setup, step_settings(of_run, setup), trainable)
    measured = _measured(model, [token_pair(one, setup.chat, *limits) for one in held_out], folder)
    model = replace(model, mean=measured["mean"], deviation=measured["deviation"])
    return model, measured | {"pairs": len(pairs)}


def _train_whole(
    config: SelfAlignConfig, setup: Setup, folder: Path, rows: list[TokenPair], digest: str
) -> Headed:
    training = Training(digest, lambda run: _inputs(run, rows), REWARD, head="beside")
    return train(config, folder, setup, training, name="reward model").trainable


def _train_head(
    config: SelfAlignConfig, setup: Setup, folder: Path, rows: list[TokenPair], digest: str
) -> Headed:
    settings = step_settings(config, setup)

    def read(start: int, stop: int) -> np.ndarray:
        shown = [(row.prompt, [row.chosen, row.rejected]) for row in rows[start:stop]]
        return ends_of(setup, settings, shown)

    features = kept_features(folder.with_name(f"{folder.name}_features"), digest, len(rows), read)
    standard = standardised(features)
    training = Training(digest, lambda run: feature_inputs(run, standard), FEATURES, head="alone")
    state = train(config, folder, setup, training, name="reward head")
    return standard.folded(state.trainable)


def _inputs(run: Run, rows: list[TokenPair]) -> MakeInput:
    size = run.config.training.batch_size
    buckets = choose_buckets(
        np.array([len(row.prompt) for row in rows]),
        np.array([[len(row.chosen), len(row.rejected)] for row in rows]),
        max_buckets=run.config.data.buckets,
        min_rows=size,
    )
    schedule = Schedule(buckets, size, run.config.seed)

    def make_input(step: int, trainable: Any) -> StepInput:
        places, (prompt_width, branch_width) = schedule.rows_of_step(step)
        shown = [rows[place] for place in places[own_rows(len(places))]]
        batch = make_batch(
            [row.prompt for row in shown],
            [[]] * len(shown),
            [Pair(row.chosen, row.rejected, (0.0, 0.0)) for row in shown],
            prompt_width=prompt_width,
            branch_width=branch_width,
            roles=NO_TARGET,
            with_reference=True,
        )
        return StepInput(batch, [], {})

    return make_input


def _measured(model: RewardModel, rows: list[TokenPair], folder: Path) -> dict:
    """Accuracy with its interval, and how scores are spread, over held-out pairs; made once."""
    path = folder / _RESULT
    if anywhere(path.exists()):
        return read_json_file(path, _MEASURED, "put it back, or remove it: it is made again")
    scores = []
    with progress("measuring the reward model", shown=is_first()) as meter:
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            scores.append(model.raw([(row.prompt, [row.chosen, row.rejected]) for row in part]))
            meter(start + len(part), len(rows))
    chosen, rejected = np.concatenate(scores).T
    deviation = float(np.std(np.concatenate(scores), dtype=np.float64))
    result = {
        "accuracy": told_apart_share(chosen, rejected).to_json(),
        "mean": float(np.mean(np.concatenate(scores), dtype=np.float64)),
        "deviation": deviation if deviation > 0 else 1.0,
        "held_out": len(rows),
    }
    if is_first():
        write_json(path, result)
    return result


def told_apart_share(chosen: np.ndarray, rejected: np.ndarray) -> Interval:
    """The share of pairs whose chosen answer scores higher, ties half, with Wilson's interval."""
    wins = float((chosen > rejected).sum() + (chosen == rejected).sum() / 2)
    return share_interval(wins, len(chosen))
