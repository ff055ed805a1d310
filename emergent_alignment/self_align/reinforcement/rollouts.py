"""Rollouts: the policy's answers to some prompts, what they are worth, and what each of their
tokens is worth. One is a pure function of (seed, its number, the policy), and lies on the disk
as long as the run, so that a run which was killed within it goes on with the same one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float

from emergent_alignment.data.batches import Batch, Roles, bucket, pad_rows, rows_of_step
from emergent_alignment.data.chat import Message
from emergent_alignment.errors import UserError
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Answer, Batching, sample_answers
from emergent_alignment.parallel.hosts import gather
from emergent_alignment.parallel.rows import own_rows, to_devices, to_host
from emergent_alignment.randomness import Purpose, key_for
from emergent_alignment.runs.training_run import Run, step_settings
from emergent_alignment.self_align.reinforcement import rl_losses
from emergent_alignment.self_align.reinforcement.policy_terms import (
    RolloutBatch,
    log_probs_and_entropies,
)
from emergent_alignment.self_align.reinforcement.rewards import ScoreAnswers, Shaping
from emergent_alignment.storage.files import write_whole
from emergent_alignment.storage.json_values import parse_json
from emergent_alignment.storage.shapes import Mapped, Number, Optional, misfit
from emergent_alignment.training.branches import branch_masks, predicting_hidden
from emergent_alignment.training.heads import Headed, head_values
from emergent_alignment.training.state import policy_params
from emergent_alignment.training.step_settings import StepSettings

_ORDER = 403  # what the orders of minibatches are drawn by, beside the seed


@dataclass(frozen=True)
class Rollout:
    """This host's prompts of one rollout, as arrays [prompts, …], and what there is to log.

    prompt, prompt_lengths, branches, branch_lengths    as in data/batches.Batch
    old_log_probs, reference, advantages, returns, old_values    as in RolloutBatch
    rewards    float32[prompts, samples]
    scalars    JSON text of {name: number}
    """

    prompt: np.ndarray
    prompt_lengths: np.ndarray
    branches: np.ndarray
    branch_lengths: np.ndarray
    old_log_probs: np.ndarray
    reference: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    old_values: np.ndarray
    rewards: np.ndarray
    scalars: np.ndarray

    def batch(self, places: np.ndarray) -> RolloutBatch:
        """Some of its prompts, with all their answers."""
        return RolloutBatch(
            self.rows(places),
            self.old_log_probs[places],
            self.reference[places],
            self.advantages[places],
            self.returns[places],
            self.old_values[places],
        )

    def rows(self, places: np.ndarray) -> Batch:
        """The same, as plain rows."""
        return Batch(
            self.prompt[places],
            self.prompt_lengths[places],
            self.branches[places],
            self.branch_lengths[places],
            np.zeros(len(places), bool),
            None,
            Roles(self.branches.shape[1]),
        )


@dataclass(frozen=True)
class RolloutSettings:
    """How rollouts are made.

    prompts, tokens    all prompts, as conversations and as tokens
    size, samples      prompts of a rollout, over all hosts, and answers to each
    width              most tokens of an answer
    chunk              prompts that go through the model at once
    score, shaping     what an answer is worth
    critic             whether there is a value head: PPO
    kl_weight, discount, decay    of PPO's rewards and advantages
    scale              of group-relative advantages
    """

    prompts: Sequence[list[Message]]
    tokens: Sequence[list[int]]
    size: int
    samples: int
    width: int
    chunk: int
    score: ScoreAnswers
    shaping: Shaping
    critic: bool
    kl_weight: float
    discount: float
    decay: float
    scale: rl_losses.Scale


def make_rollout(
    run: Run, wanted: RolloutSettings, number: int, trainable: Headed | dict
) -> tuple[Rollout, list[dict]]:
    """A rollout with the policy as it stands, and the journal's records of it."""
    seed, chosen = run.config.seed, None
    chosen = rows_of_step(len(wanted.prompts), wanted.size, seed, number)
    places = own_rows(wanted.size)
    prompts = [wanted.prompts[row] for row in chosen[places]]
    body = trainable.body if wanted.critic else trainable
    with run.clock.part("sampling"):
        answers = _sampled(run, wanted, number, body, chosen, places)
    with run.clock.part("review"):
        scores = wanted.score(prompts, answers, (seed, number, int(places[0])))
    parts = wanted.shaping.parts(scores, answers)
    rewards = sum(parts.values()).astype(np.float32)
    rows = _rows(run, wanted, [wanted.tokens[row] for row in chosen[places]], answers)
    known = _known(run, wanted, trainable, rows, answers)
    worth = _worth(wanted, rewards, rows, known)
    scalars = _scalars(wanted, answers, parts, rewards, rows, known, worth)
    rollout = Rollout(
        rows.prompt, rows.prompt_lengths, rows.branches, rows.branch_lengths, *known[:2], *worth,
        known[2], rewards, np.array(json.dumps(scalars)),
    )  # fmt: skip
    return rollout, _records(wanted, number, chosen, places, prompts, answers, parts)


def write_rollout(path: Path, rollout: Rollout) -> None:
    """The rollout, whole or not at all."""
    arrays = {field.name: getattr(rollout, field.name) for field in fields(rollout)}
    write_whole(path, lambda file: np.savez(file, **arrays))


def read_rollout(path: Path) -> Rollout:
    """What write_rollout wrote; its archive has a check of each array. Raises UserError where it
    cannot be read, or is not that."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rollout = Rollout(**{field.name: arrays[field.name] for field in fields(Rollout)})
        wrong = _misfit(rollout)
    except Exception as error:  # whatever NumPy and its archive say of a damaged file
        wrong = f"cannot be read ({type(error).__name__}: {str(error)[:200]})"
    if wrong:
        raise UserError(
            f"{path}: {wrong}; put it back as it was, or move the checkpoints since its first step "
            "away, and it is made again"
        )
    return rollout


def _misfit(rollout: Rollout) -> str:
    """What is wrong with a rollout's arrays: their shapes, or numbers that are none."""
    shape, scalars = rollout.branches.shape, parse_json(str(rollout.scalars))
    by_token = (rollout.old_log_probs, rollout.reference, rollout.advantages, rollout.returns)
    if len(shape) != 3 or any(array.shape != shape for array in (*by_token, rollout.old_values)):
        return "its arrays do not have one shape"
    if rollout.rewards.shape != shape[:2] or len(rollout.prompt) != shape[0]:
        return "its rewards or prompts are not those of its answers"
    if not all(np.isfinite(array).all() for array in (*by_token, rollout.rewards)):
        return "holds numbers that are not finite"
    return misfit(scalars, Mapped(Optional(Number())))


def minibatch(num_prompts: int, size: int, seed: tuple[int, ...], place: int) -> np.ndarray:
    """Which prompts of a rollout the step at `place` in it takes, `size` of them: epoch after
    epoch, each in an order of its own."""
    steps = num_prompts // size
    epoch, part = divmod(place, steps)
    order = np.random.default_rng((*seed, _ORDER, epoch)).permutation(num_prompts)
    return np.sort(order[part * size : (part + 1) * size])


def _sampled(run, wanted, number, body, chosen, places) -> list[list[Answer]]:
    """Answers at temperature 1: their log-probs are then those of what they were drawn from."""
    setup, config = run.setup, run.config
    ids = (places[:, None] * wanted.samples + np.arange(wanted.samples)).reshape(-1)
    answers: list[Answer | None] = [None] * len(ids)
    for index, answer in sample_answers(
        setup.model,
        policy_params(body, setup.model.params, run.lora),
        setup.chat,
        [wanted.tokens[row] for row in chosen[places] for _ in range(wanted.samples)],
        key_for(config.seed, Purpose.ROLLOUTS, number),
        sampler_settings(setup.chat.end_tokens, wanted.width),
        Batching(len(ids), config.data.bucket_tokens, ids=ids),
    ):
        answers[index] = answer
    return [answers[i : i + wanted.samples] for i in range(0, len(ids), wanted.samples)]


def _rows(run: Run, wanted: RolloutSettings, tokens, answers) -> Batch:
    """All rollouts have one shape: the step is compiled once."""
    step = run.config.data.bucket_tokens
    prompt = pad_rows(tokens, bucket(max(map(len, wanted.tokens)), step, 1 << 30))
    flat = [answer.tokens for group in answers for answer in group]
    branches, lengths = pad_rows(flat, bucket(wanted.width, step, 1 << 30))
    shape = len(tokens), wanted.samples
    return Batch(
        *prompt,
        branches.reshape(*shape, -1),
        lengths.reshape(shape),
        np.zeros(len(tokens), bool),
        None,
        Roles(wanted.samples),
    )


def _known(run: Run, wanted: RolloutSettings, trainable, rows: Batch, answers):
    """(old log-probs as the sampler saw them, the frozen copy's, values), a few prompts at once."""
    settings, frozen = step_settings(run.config, run.setup), run.setup.model.params
    old = np.zeros(rows.branches.shape, np.float32)
    for place, group in enumerate(answers):
        for sample, answer in enumerate(group):
            old[place, sample, : len(answer.tokens)] = answer.log_probs
    reference, values = np.zeros_like(old), np.zeros_like(old)
    for start in range(0, len(old), wanted.chunk):
        part = slice(start, start + wanted.chunk)
        shown = to_devices(jax.tree.map(lambda x, part=part: x[part], rows))
        reference[part] = to_host(_log_probs(settings, frozen, shown))
        if wanted.critic:
            values[part] = to_host(_values(settings, trainable, frozen, shown))
    return old, reference, values


def _values_of(
    settings: StepSettings, trainable: Headed, frozen: dict, rows: Batch
) -> Float[Array, "batch branches tokens"]:
    params = policy_params(trainable.body, frozen, settings.lora)
    return _masked(head_values(trainable, predicting_hidden(settings, params, rows)), rows)


def _log_probs_of(
    settings: StepSettings, params: dict, rows: Batch
) -> Float[Array, "batch branches tokens"]:
    hidden = predicting_hidden(settings, params, rows)
    return _masked(log_probs_and_entropies(settings, params, hidden, rows)[..., 0], rows)


def _masked(values, rows: Batch):
    return jax.numpy.where(branch_masks(rows), values, 0.0)


_values = jax.jit(_values_of, static_argnums=0)
_log_probs = jax.jit(_log_probs_of, static_argnums=0)


def _worth(wanted: RolloutSettings, rewards, rows: Batch, known) -> tuple[np.ndarray, np.ndarray]:
    """(advantages, returns) of every token."""
    old, reference, values = known
    width = old.shape[-1]
    mask = np.asarray(branch_masks(rows))
    if not wanted.critic:
        by_group = np.asarray(rl_losses.group_advantages(rewards, scale=wanted.scale))
        return np.where(mask, by_group[..., None], 0.0).astype(np.float32), np.zeros_like(old)
    flat = [x.reshape(-1, width) for x in (old, reference, mask, values)]
    shaped = rl_losses.shaped_rewards(
        rewards.reshape(-1), flat[0], flat[1], flat[2], kl_weight=wanted.kl_weight
    )
    advantages, returns = rl_losses.generalized_advantages(
        shaped, flat[3], flat[2], discount=wanted.discount, decay=wanted.decay
    )
    # Whitened over all hosts' answers; each host keeps its own.
    everywhere = gather(np.asarray(advantages)), gather(flat[2])
    whitened = np.asarray(rl_losses.masked_whiten(*(jax.numpy.asarray(x) for x in everywhere)))
    own = whitened[jax.process_index()] if jax.process_count() > 1 else whitened[0]
    return own.reshape(old.shape), np.asarray(returns).reshape(old.shape)


def _scalars(wanted, answers, parts, rewards, rows, known, worth) -> dict[str, float]:
    """What people look at, over all hosts' answers."""
    old, reference, values = known
    mask = np.asarray(branch_masks(rows))
    by_answer = {f"reward/{name}": part for name, part in parts.items()}
    by_answer |= {
        "rollout/reward": rewards,
        "rollout/length": rows.branch_lengths,
        "rollout/ended": [[answer.ended for answer in group] for group in answers],
        "rollout/kl_answer": np.where(mask, old - reference, 0.0).sum(-1),
    }
    stacked = np.stack([np.asarray(part, np.float32) for part in by_answer.values()])
    everywhere = np.concatenate(list(gather(stacked)), axis=1)
    scalars = dict(zip(by_answer, everywhere.reshape(len(by_answer), -1).mean(1).tolist()))
    spread = everywhere[list(by_answer).index("rollout/reward")]
    scalars["rollout/reward_deviation"] = float(spread.std())
    scalars["rollout/distinct_groups"] = float((np.ptp(spread, axis=-1) > 0).mean())
    if wanted.critic:
        gathered = (gather(np.asarray(x)) for x in (values, worth[1], mask))
        explained = rl_losses.explained_variance(*(jax.numpy.asarray(x) for x in gathered))
        scalars["rollout/explained_variance"] = float(explained)
    return scalars


def _records(wanted, number, chosen, places, prompts, answers, parts) -> list[dict]:
    """One record an answer, in the journal's words."""
    records = []
    for i, (place, prompt) in enumerate(zip(places, prompts)):
        for sample, answer in enumerate(answers[i]):
            worth = {name: float(part[i, sample]) for name, part in parts.items()}
            records.append(
                {
                    "rollout": number,
                    "place": int(place) * wanted.samples + sample,
                    "row": int(chosen[place]),
                    "prompt": prompt,
                    "candidate": answer.text,
                    "candidate_score": sum(worth.values()),
                    "revision": "",
                    "revision_score": None,
                    "outcome": "ended" if answer.ended else "truncated",
                    "reward": worth,
                }
            )
    return records
