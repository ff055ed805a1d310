"""The reward model: a scalar head on the hidden state at the end of an answer, trained on
preferences with the Bradley–Terry loss, and what it says of answers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from emergent_alignment.applications.composition import Run, step_settings, train
from emergent_alignment.applications.kept import write_json
from emergent_alignment.applications.setup import Setup
from emergent_alignment.data.batches import Batch, Pair, bucket, make_batch
from emergent_alignment.data.buckets import Schedule, choose_buckets
from emergent_alignment.data.chat import Message
from emergent_alignment.errors import UserError
from emergent_alignment.generation.text import Answer
from emergent_alignment.intervals import Interval, share_interval
from emergent_alignment.parallel.rows import own_rows, row_multiple, to_devices, to_host
from emergent_alignment.progress import progress
from emergent_alignment.self_align.reinforcement.preferences import (
    Preference,
    TokenPair,
    preferences_digest,
    token_pair,
    with_guidelines,
)
from emergent_alignment.self_align.reinforcement.rl_losses import bradley_terry_loss
from emergent_alignment.training.heads import Headed, body_params, head_values
from emergent_alignment.training.loop import MakeInput, StepInput
from emergent_alignment.training.step import Objective, StepSettings, branch_hidden

ROLES = "no target"
RESULT = "reward_model.json"


def branch_scores(
    settings: StepSettings, trainable: Headed, frozen: dict, batch: Batch
) -> Float[Array, "batch branches"]:
    """The head's value at each branch's last true token, in float32; of empty branches it means
    nothing."""
    params = body_params(trainable, frozen, settings.lora)
    _, own = branch_hidden(settings, params, batch)
    last = jnp.maximum(batch.branch_lengths - 1, 0)[..., None, None]
    return head_values(trainable, jnp.take_along_axis(own, last, axis=2)[:, :, 0])


def preference_objective(
    settings: StepSettings, trainable: Headed, frozen: dict, batch: Batch, totals: dict
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The mean Bradley–Terry loss of the pairs, and how many of them are told apart."""
    scores = branch_scores(settings, trainable, frozen, batch)
    chosen, rejected = scores[:, batch.roles.chosen], scores[:, batch.roles.rejected]

    def over_pairs(values):
        return jnp.where(batch.pair_mask, values, 0.0).sum() / totals["pairs"]

    loss = over_pairs(bradley_terry_loss(chosen, rejected))
    metrics = {
        "task_loss": loss,
        "reward_accuracy": over_pairs((chosen > rejected).astype(jnp.float32)),
        "reward_margin": over_pairs(chosen - rejected),
        "reward_chosen": over_pairs(chosen),
    }
    return loss, jax.tree.map(jax.lax.stop_gradient, metrics)


def _totals(batch: Batch) -> dict[str, Float[Array, ""]]:
    return {"pairs": jnp.maximum(batch.pair_mask.sum().astype(jnp.float32), 1.0)}


REWARD = Objective(preference_objective, _totals)


@dataclass(frozen=True, eq=False)
class RewardModel:
    """What scores answers: the trained head with its backbone, and the mean and deviation of its
    scores of held-out answers, by which a score is told (Ouyang et al. 2022, section 3.5, shift
    it likewise)."""

    setup: Setup
    settings: StepSettings
    trainable: Headed
    mean: float = 0.0
    deviation: float = 1.0

    def scores(
        self,
        prompts: Sequence[list[Message]],
        answers: Sequence[Answer],
        guidelines: Sequence[tuple[str, ...]],
    ) -> np.ndarray:
        """float32[answers], each told its `guidelines`, in standard deviations above the mean of
        held-out answers."""
        chat, config = self.setup.chat, self.setup.config
        rows = [
            chat.prompt_tokens(with_guidelines(prompt, told))[-config.data.max_prompt_tokens :]
            for prompt, told in zip(prompts, guidelines)
        ]
        raw = self.raw([(row, [answer.tokens]) for row, answer in zip(rows, answers)])
        return (raw[:, 0] - self.mean) / self.deviation

    def raw(self, rows: list[tuple[list[int], list[list[int]]]], size: int = 16) -> np.ndarray:
        """float32[rows, branches]: the head's own scores of (prompt, branches), in batches of
        rows of like length."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1][0]))
        found = np.zeros((len(rows), len(rows[0][1])), np.float32)
        size = -(-size // row_multiple()) * row_multiple()
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            batch = _padded([rows[i] for i in chosen], size, self.setup.config.data.bucket_tokens)
            scores = _scores(self.settings, self.trainable, self.setup.model.params, batch)
            found[chosen] = to_host(scores)[: len(chosen)]
        return found


_scores = jax.jit(branch_scores, static_argnums=0)


def _padded(rows, size: int, step: int) -> Batch:
    rows = rows + [rows[0]] * (size - len(rows))
    batch = make_batch(
        [prompt for prompt, _ in rows],
        [[]] * len(rows),
        [Pair(branches[0], branches[-1]) for _, branches in rows],
        prompt_width=bucket(max(len(prompt) for prompt, _ in rows), step, 1 << 30),
        branch_width=bucket(max(len(b) for _, branches in rows for b in branches), step, 1 << 30),
        roles=ROLES,
    )
    if len(rows[0][1]) == 1:
        parts = batch.branches[:, :1], batch.branch_lengths[:, :1]
        batch = replace(batch, branches=parts[0], branch_lengths=parts[1])
    return to_devices(batch)


def reward_config(config: ConfigDict, num_pairs: int) -> ConfigDict:
    """The config of the reward model's run: the main one, with what reinforcement.reward_model
    says."""
    wanted = config.self_align.reinforcement.reward_model
    changed = ConfigDict(config.to_dict())
    changed.conscience.enabled = False
    size = min(wanted.batch_size, num_pairs)
    steps = max(round(wanted.epochs * num_pairs / size), 1)
    changed.training.update({"batch_size": size, "steps": steps, "accumulation": 1})
    changed.optimizer.update({"learning_rate": wanted.learning_rate})
    changed.lock()
    return changed


def train_reward_model(
    config: ConfigDict, setup: Setup, folder: Path, pairs: list[Preference], held_out: list
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
    changed = reward_config(config, len(pairs))
    setup = replace(setup, config=changed)
    limits = changed.data.max_prompt_tokens, changed.data.max_response_tokens
    rows = [token_pair(one, setup.chat, *limits) for one in pairs]
    frozen_body = config.self_align.reinforcement.reward_model.backbone == "frozen"
    state = train(
        changed,
        folder,
        setup,
        preferences_digest(pairs),
        lambda run: _inputs(run, rows),
        objective=REWARD,
        head="alone" if frozen_body else "beside",
        name="reward model",
    )
    model = RewardModel(setup, step_settings(changed, setup), state.trainable)
    measured = _measured(model, [token_pair(one, setup.chat, *limits) for one in held_out], folder)
    model = replace(model, mean=measured["mean"], deviation=measured["deviation"])
    return model, measured | {"pairs": len(pairs)}


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
            roles=ROLES,
            with_reference=True,
        )
        return StepInput(batch, [], {})

    return make_input


def _measured(model: RewardModel, rows: list[TokenPair], folder: Path) -> dict:
    """Accuracy with its interval, and how scores are spread, over held-out pairs; made once."""
    path = folder / RESULT
    if path.exists():
        return json.loads(path.read_text("utf-8"))
    scores = []
    with progress("measuring the reward model") as meter:
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            scores.append(model.raw([(row.prompt, [row.chosen, row.rejected]) for row in part]))
            meter(start + len(part), len(rows))
    chosen, rejected = np.concatenate(scores).T
    deviation = float(np.std(np.concatenate(scores), dtype=np.float64))
    found = {
        "accuracy": told_apart_share(chosen, rejected).to_json(),
        "mean": float(np.mean(np.concatenate(scores), dtype=np.float64)),
        "deviation": deviation if deviation > 0 else 1.0,
        "held_out": len(rows),
    }
    write_json(path, found)
    return found


def told_apart_share(chosen: np.ndarray, rejected: np.ndarray) -> Interval:
    """The share of pairs whose chosen answer scores higher, ties half, with Wilson's interval."""
    wins = float((chosen > rejected).sum() + (chosen == rejected).sum() / 2)
    return share_interval(wins, len(chosen))
