"""The pure step: train_step(state, frozen, batch) -> (state, metrics).

What it minimises is an `Objective`: here the hybrid loss of prompts with their branches, in
applications/pretraining/loss.py that of windows of text. Accumulation is a scan inside the step,
with the whole batch's denominators; a loss or gradient that is not finite leaves the state bitwise
as it was.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from emergent_alignment.data.batches import Batch
from emergent_alignment.losses import hybrid_loss, loss_totals, task_loss
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import forward, sharded_token_kl, sharded_token_log_probs
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.models.placement import shardings_of
from emergent_alignment.models.prefix_attention import Implementation, prefix_plan
from emergent_alignment.parallel.sharding import constrain, sharding
from emergent_alignment.training.state import TrainState, policy_params


@dataclass(frozen=True)
class StepSettings:
    """What the compiled step depends on; all static."""

    config: ModelConfig
    lora: LoraConfig | None
    dtype: Any = jnp.float32
    remat: str = "none"
    attention: Implementation = "auto"
    chunk_size: int | None = 256
    accumulation: int = 1
    kind: str = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    normalize: bool = False
    alignment_weight: float = 1.0
    chosen_nll_weight: float = 0.0
    kl_weight: float = 0.0


@dataclass(frozen=True)
class Objective:
    """What a step minimises, as pure functions; batches are any pytree of arrays [rows, …].

    loss     (settings, trainable, frozen, part of a batch, totals) -> (scalar, metrics), which
             add up over the parts to those of the whole batch; `task_loss` is among the metrics
    totals   whole batch -> its denominators
    """

    loss: Callable[..., tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]
    totals: Callable[[Any], dict[str, Any]]


def branch_masks(batch: Batch) -> Bool[Array, "batch branches tokens"]:
    """Which branch positions hold a token, from lengths alone."""
    return jnp.arange(batch.branches.shape[-1]) < batch.branch_lengths[..., None]


def target_mask(batch: Batch) -> Bool[Array, "batch tokens"]:
    """Which tokens the task loss learns: those of the target branch, none where there is none."""
    if batch.roles.target is None:
        return jnp.zeros((batch.branches.shape[0], batch.branches.shape[-1]), bool)
    return branch_masks(batch)[:, batch.roles.target]


def branch_log_probs(
    settings: StepSettings, params: dict, batch: Batch
) -> Float[Array, "batch branches tokens"]:
    """float32 log-probs of every branch token, each prompt's tokens computed once."""
    return _log_probs_from(settings, params, predicting_hidden(settings, params, batch), batch)


def predicting_hidden(
    settings: StepSettings, params: dict, batch: Batch
) -> Float[Array, "batch branches tokens width"]:
    """The final hidden states that predict each branch token; the first token of each branch is
    predicted by the prompt's last true token."""
    first, own = branch_hidden(settings, params, batch)
    return jnp.concatenate([first, own[:, :, :-1]], axis=2)


def branch_hidden(
    settings: StepSettings, params: dict, batch: Batch
) -> tuple[Float[Array, "batch branches 1 width"], Float[Array, "batch branches tokens width"]]:
    """The final hidden states of the prompt's last true token, before each branch, and of each
    branch's own tokens."""
    rows, size = batch.prompt.shape
    _, branches, length = batch.branches.shape
    layout = PrefixLayout(size, branches, length)
    tokens = jnp.concatenate([batch.prompt, batch.branches.reshape(rows, -1)], axis=1)
    hidden, _ = forward(
        settings.config,
        params,
        tokens,
        layout.positions(batch.prompt_lengths),
        prefix_plan(layout, batch.prompt_lengths, settings.attention),
        dtype=settings.dtype,
        remat=settings.remat,
    )
    last = jnp.maximum(batch.prompt_lengths - 1, 0)[:, None, None]
    first = jnp.take_along_axis(hidden[:, :size], last, axis=1)
    first = jnp.broadcast_to(first[:, None], (rows, branches, 1, hidden.shape[-1]))
    return first, hidden[:, size:].reshape(rows, branches, length, -1)


def _log_probs_from(settings, params, hidden, batch) -> Float[Array, "batch branches tokens"]:
    rows, branches, length = batch.branches.shape
    log_probs = sharded_token_log_probs(
        params,
        hidden.reshape(rows, branches * length, -1),
        batch.branches.reshape(rows, -1),
        chunk_size=settings.chunk_size,
        dtype=settings.dtype,
    )
    return log_probs.reshape(rows, branches, length)


def pair_log_probs(settings: StepSettings, params: dict, batch: Batch) -> Float[Array, "batch 2"]:
    """Summed log-probs of chosen and rejected, as a batch carries them for its reference."""
    log_probs = jnp.where(branch_masks(batch), branch_log_probs(settings, params, batch), 0.0)
    summed = log_probs.sum(-1)
    return jnp.stack([summed[:, batch.roles.chosen], summed[:, batch.roles.rejected]], axis=-1)


reference_log_probs = jax.jit(pair_log_probs, static_argnums=0)


def batch_loss(
    settings: StepSettings, trainable: Any, frozen: dict, batch: Batch, totals: dict
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The hybrid loss of (part of) a batch under the whole batch's `totals`; with one branch
    a row it is the task loss alone. With `kl_weight`, plus so much times the KL of the policy
    from the frozen copy on the targets' tokens."""
    params = policy_params(trainable, frozen, settings.lora)
    hidden = predicting_hidden(settings, params, batch)
    log_probs = _log_probs_from(settings, params, hidden, batch)
    if batch.roles.num_branches == 1:
        loss = task_loss(log_probs[:, 0], target_mask(batch), num_tokens=totals["target_tokens"])
        metrics = {"task_loss": jax.lax.stop_gradient(loss)}
    else:
        loss, metrics = _hybrid(settings, frozen, batch, log_probs, totals)
    if not settings.kl_weight or batch.roles.target is None:
        return loss, metrics
    kl = _target_kl(settings, params, frozen, batch, hidden) / totals["target_tokens"]
    return loss + settings.kl_weight * kl, metrics | {"kl_target": jax.lax.stop_gradient(kl)}


def _target_kl(settings, params, frozen, batch, hidden) -> Float[Array, ""]:
    """Σ KL(π_θ ‖ π_θ₀) over the targets' tokens, in nats."""
    frozen = jax.lax.stop_gradient(frozen)
    target = batch.roles.target
    found = sharded_token_kl(
        params,
        hidden[:, target],
        frozen,
        predicting_hidden(settings, frozen, batch)[:, target],
        chunk_size=settings.chunk_size,
        dtype=settings.dtype,
    )
    return jnp.where(target_mask(batch), found, 0.0).sum()


def _hybrid(settings, frozen, batch, log_probs, totals) -> tuple[Float[Array, ""], dict]:
    roles, masks = batch.roles, branch_masks(batch)
    reference = batch.reference
    if reference is None:
        reference = pair_log_probs(settings, jax.lax.stop_gradient(frozen), batch)
    rejected = roles.rejected
    loss, metrics = hybrid_loss(
        log_probs[:, roles.target or 0],
        target_mask(batch),
        log_probs[:, roles.chosen],
        masks[:, roles.chosen],
        log_probs[:, rejected],
        masks[:, rejected],
        reference[:, 0],
        reference[:, 1],
        batch.pair_mask,
        kind=settings.kind,
        beta=settings.beta,
        label_smoothing=settings.label_smoothing,
        normalize=settings.normalize,
        alignment_weight=settings.alignment_weight,
        chosen_nll_weight=settings.chosen_nll_weight,
        totals=totals,
    )
    # k1 estimate of KL(π_θ ‖ π_θ₀) in nats a token, exact in expectation on policy samples.
    delta = (log_probs[:, rejected] * masks[:, rejected]).sum(-1) - reference[:, 1]
    pairs = jnp.where(batch.pair_mask, delta, 0.0).sum()
    metrics["kl"] = jax.lax.stop_gradient(pairs) / totals["rejected_tokens"]
    return loss, metrics


def batch_totals(batch: Batch) -> dict[str, Float[Array, ""]]:
    """The whole batch's denominators (losses.loss_totals, and the rejected tokens)."""
    masks = branch_masks(batch)
    roles = batch.roles
    rejected = masks[:, roles.rejected] & batch.pair_mask[:, None]
    totals = loss_totals(target_mask(batch), masks[:, roles.chosen], batch.pair_mask)
    return totals | {"rejected_tokens": jnp.maximum(rejected.sum().astype(jnp.float32), 1.0)}


HYBRID = Objective(batch_loss, batch_totals)


def loss_and_gradients(
    settings: StepSettings,
    trainable: Any,
    frozen: dict,
    batch: Any,
    objective: Objective = HYBRID,
) -> tuple[Any, dict[str, Float[Array, ""]]]:
    """(gradients, metrics) of the whole batch, microbatch by microbatch in a scan."""
    totals = objective.totals(batch)
    differentiated = jax.value_and_grad(objective.loss, argnums=1, has_aux=True)

    def one(part: Any):
        (loss, metrics), gradients = differentiated(settings, trainable, frozen, part, totals)
        return gradients, metrics | {"loss": loss}

    if settings.accumulation == 1:
        return one(batch)
    parts = jax.tree.map(functools.partial(_microbatches, settings.accumulation), batch)

    def add(total, part):
        return jax.tree.map(jnp.add, total, one(part)), None

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(one, jax.tree.map(lambda x: x[0], parts)),
    )
    return jax.lax.scan(add, zeros, parts)[0]


def _microbatches(count: int, x: Array) -> Array:
    """[rows, …] as [count, rows / count, …], every count-th row together: so each shard's own
    rows are spread over all microbatches."""
    parts = x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1)
    return constrain(parts, None, "batch", *(None,) * (x.ndim - 1))


def train_step(
    settings: StepSettings,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    frozen: dict,
    batch: Any,
    objective: Objective = HYBRID,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One update. Metrics are float32 scalars: those of the objective, loss, gradient_norm, and
    `nonfinite` (1 where loss or gradient was not finite, and the state was left alone)."""
    gradients, metrics = loss_and_gradients(settings, state.trainable, frozen, batch, objective)
    norm = optax.global_norm(gradients)
    finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])

    def update():
        updates, moments = optimizer.update(gradients, state.optimizer, state.trainable)
        return TrainState(optax.apply_updates(state.trainable, updates), moments)

    state = jax.lax.cond(finite, update, lambda: state)
    return state, metrics | {"gradient_norm": norm, "nonfinite": 1.0 - finite}


def compiled_step(
    settings: StepSettings,
    optimizer: optax.GradientTransformation,
    placed: tuple[TrainState, dict] | None = None,
    objective: Objective = HYBRID,
) -> Callable[[TrainState, dict, Any], tuple[TrainState, dict]]:
    """`train_step` jitted; the state is donated, the frozen parameters never are. The same
    arguments give the same function: what is compiled for a run serves the next in its process.

    On a mesh `placed` holds the shardings of (state, frozen), see `step_shardings`; batches are
    cut by rows, and the step is called where that mesh is in force.
    """
    places, structure = jax.tree.flatten(placed)
    return _compiled(settings, optimizer, objective, tuple(places), structure)


@functools.lru_cache(maxsize=16)
def _compiled(settings, optimizer, objective, places, structure):
    step = functools.partial(train_step, settings, optimizer, objective=objective)
    if not places:
        return jax.jit(step, donate_argnums=0)
    placed = jax.tree.unflatten(structure, places)
    mesh = places[0].mesh
    rows, everywhere = sharding(mesh, ("batch",)), sharding(mesh, ())
    return jax.jit(
        step,
        in_shardings=(*placed, rows),
        out_shardings=(placed[0], everywhere),
        donate_argnums=0,
    )


def step_shardings(
    mesh: Mesh | None, state: TrainState, frozen: dict
) -> tuple[TrainState, dict] | None:
    """Where a state and the frozen parameters (or their shapes) lie on a mesh; None without."""
    if mesh is None:
        return None
    return shardings_of(mesh, state, like=state.trainable), shardings_of(mesh, frozen)
