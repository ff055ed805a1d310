"""Policy optimisation: a run whose steps are minibatches of rollouts, from the model it is given,
which stays as the frozen copy."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from emergent_alignment.data.batches import ROLES, Batch
from emergent_alignment.data.chat import Message
from emergent_alignment.runs.from_config import Setup, check_rows
from emergent_alignment.runs.training_run import Run, Training, hybrid_terms, train
from emergent_alignment.self_align.reinforcement.policy_terms import (
    EntropyTerm,
    GRPOTerm,
    PPOTerm,
    RolloutView,
    ValueTerm,
)
from emergent_alignment.self_align.reinforcement.rewards import ScoreAnswers, shaping_of
from emergent_alignment.self_align.reinforcement.rollouts import (
    Rollout,
    RolloutSettings,
    make_rollout,
    minibatch,
    read_rollout,
    write_rollout,
)
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.settings import changed
from emergent_alignment.storage.json_values import digest
from emergent_alignment.training.loop import MakeInput, StepInput
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.state import TrainState


def policy_config(config: SelfAlignConfig) -> SelfAlignConfig:
    """The config of the run: the main one, with what reinforcement.policy says."""
    wanted = config.self_align.reinforcement.policy
    return changed(
        config,
        {
            "conscience.enabled": False,
            "lora.rank": wanted.lora_rank,
            "optimizer.learning_rate": wanted.learning_rate,
            "training.steps": wanted.rollouts * wanted.epochs * wanted.minibatches,
            "training.batch_size": wanted.prompts_per_rollout // wanted.minibatches,
        },
    )


def optimise_policy(
    config: SelfAlignConfig,
    setup: Setup,
    workdir: Path,
    prompts: Sequence[list[Message]],
    score: ScoreAnswers,
    *,
    identity: str = "",
    base_run: Path | None = None,
) -> TrainState:
    """Optimise `setup`'s model for a score, by the algorithm that the config names, in a work
    directory that a killed run goes on in. `identity` are digits of what the score depends on;
    `base_run` the run that has trained `setup`'s model, where there is one.

    Returns the last state; PPO's trainable parameters are `Headed`."""
    of_run = policy_config(config)
    check_rows(of_run, setup.mesh)
    setup = replace(setup, config=of_run)
    wanted = rollout_settings(config, setup, prompts, score)
    training = Training(
        digest([list(prompts), identity]),
        lambda run: _inputs(run, workdir, wanted),
        policy_objective(config),
        head="beside" if config.self_align.reinforcement.algorithm == "ppo" else "",
        base_run=base_run,
    )
    return train(of_run, workdir, setup, training, name=config.self_align.reinforcement.algorithm)


def policy_objective(config: SelfAlignConfig) -> Objective:
    """What the algorithm that the config names minimises."""
    policy = config.self_align.reinforcement.policy
    clip = {"clip": policy.clip, "clip_high": policy.clip_high}
    bonus = EntropyTerm(policy.entropy_weight)
    match config.self_align.reinforcement.algorithm:
        case "dpo":
            return Objective(hybrid_terms(config.loss))
        case "ppo":
            value = ValueTerm(policy.value_weight, policy.value_clip)
            return Objective((PPOTerm(**clip), value, bonus), RolloutView)
        case "grpo":
            of_group = GRPOTerm(
                **clip,
                kl_weight=policy.kl_weight,
                normalization=policy.normalization,
                ratio=policy.ratio,
            )
            return Objective((of_group, bonus), RolloutView)


def rollout_settings(
    config: SelfAlignConfig, setup: Setup, prompts: Sequence[list[Message]], score: ScoreAnswers
) -> RolloutSettings:
    """How the run's rollouts are made."""
    wanted = config.self_align.reinforcement.policy
    longest = config.data.max_prompt_tokens
    return RolloutSettings(
        prompts,
        [setup.chat.prompt_tokens(prompt)[-longest:] for prompt in prompts],
        wanted.prompts_per_rollout,
        wanted.samples,
        wanted.max_new_tokens,
        wanted.prompts_per_rollout // wanted.minibatches,
        score,
        shaping_of(config),
        config.self_align.reinforcement.algorithm == "ppo",
        wanted.kl_weight,
        wanted.discount,
        wanted.decay,
        wanted.scale,
    )


def _inputs(run: Run[SelfAlignConfig], workdir: Path, wanted: RolloutSettings) -> MakeInput:
    policy = run.config.self_align.reinforcement.policy
    steps = policy.epochs * policy.minibatches
    paired = run.config.self_align.reinforcement.algorithm == "dpo"
    at_hand: dict[int, Rollout] = {}  # the rollout of the step before

    def rollout_of(number: int, place: int, trainable: Any) -> tuple[Rollout, list[dict]]:
        path = workdir / "rollouts" / f"{number:06d}.host-{jax.process_index():03d}.npz"
        records: list[dict] = []
        if number not in at_hand:
            at_hand.clear()
            if place:
                at_hand[number] = read_rollout(path)
            else:
                at_hand[number], records = make_rollout(run, wanted, number, trainable)
                write_rollout(path, at_hand[number])
        return at_hand[number], records

    def make_input(step: int, trainable: Any) -> StepInput:
        number, place = divmod(step, steps)
        rollout, records = rollout_of(number, place, trainable)
        prompts = len(rollout.prompt)
        size = prompts // policy.minibatches
        shown = minibatch(prompts, size, (run.config.seed, number), place)
        batch = _pairs(rollout, shown) if paired else rollout.batch(shown)
        records = [record | {"step": step} for record in records]
        return StepInput(batch, records, json.loads(str(rollout.scalars)))

    return make_input


def _pairs(rollout: Rollout, places: np.ndarray) -> Batch:
    """The best answer of each group over the worst one, with the frozen copy's log-probs; groups
    whose rewards are all alike have no pair."""
    rewards = rollout.rewards[places]
    ends = np.stack([rewards.argmax(1), rewards.argmin(1)], axis=1)
    rows = rollout.rows(places)

    def taken(values: np.ndarray) -> np.ndarray:
        return np.stack([group[pair] for group, pair in zip(values, ends)])

    return replace(
        rows,
        branches=taken(rows.branches),
        branch_lengths=taken(rows.branch_lengths),
        pair_mask=np.ptp(rewards, axis=1) > 0,
        reference=taken(rollout.reference[places].sum(-1)).astype(np.float32),
        roles=ROLES["no target"],
    )
