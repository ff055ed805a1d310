"""The pure step: train_step(state, frozen, batch) -> (state, metrics).

What it minimises is an `Objective`, a sum of terms (objective.py). Accumulation is a scan inside
the step, with the whole batch's denominators; a loss or gradient that is not finite leaves the
state bitwise as it was.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from emergent_alignment.models.placement import shardings_of
from emergent_alignment.parallel.sharding import constrain, sharding
from emergent_alignment.training.objective import Objective, Weights
from emergent_alignment.training.state import TrainState
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.terms import HYBRID
from emergent_alignment.training.two_gradients import strengths, without_conflict


def loss_and_gradients(
    settings: StepSettings,
    trainable: Any,
    frozen: dict,
    batch: Any,
    objective: Objective = HYBRID,
    weights: Weights | None = None,
) -> tuple[Any, dict[str, Float[Array, ""]]]:
    """(gradients, metrics) of the whole batch, microbatch by microbatch in a scan. `weights`
    replace those of the objective's terms that they name; they may be traced."""
    counts = objective.counts(batch)
    differentiated = jax.value_and_grad(objective.loss, argnums=1, has_aux=True)

    def one(part: Any):
        (loss, metrics), gradients = differentiated(
            settings, trainable, frozen, part, counts, weights
        )
        return gradients, metrics | {"loss": loss}

    return _over_microbatches(settings, batch, one)


def gradients_apart(
    settings: StepSettings,
    trainable: Any,
    frozen: dict,
    batch: Any,
    objective: Objective = HYBRID,
    weights: Weights | None = None,
) -> tuple[tuple[Any, Any], dict[str, Float[Array, ""]]]:
    """((gradients of the task, of the alignment), metrics), as `loss_and_gradients` has their sum:
    one forward pass, and two backward passes."""
    counts = objective.counts(batch)

    def one(part: Any):
        def apart(trainable):
            return objective.losses_apart(settings, trainable, frozen, part, counts, weights)

        losses, pull_back, metrics = jax.vjp(apart, trainable, has_aux=True)
        gradients = tuple(pull_back(unit)[0] for unit in jnp.eye(2))
        return gradients, metrics | {"loss": losses.sum()}

    return _over_microbatches(settings, batch, one)


def _over_microbatches(settings: StepSettings, batch: Any, one: Callable[[Any], Any]) -> Any:
    """Σ one(part) over the microbatches of a batch."""

    if settings.accumulation == 1:
        return one(batch)
    parts = jax.tree.map(functools.partial(_microbatches, settings.accumulation), batch)

    def add(total, part):
        return jax.tree.map(jnp.add, total, one(part)), None

    # In float32: a bfloat16 sum would lose what the last of many microbatches add to it.
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)),
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
    weights: Weights | None = None,
    *,
    objective: Objective = HYBRID,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One update. Metrics are float32 scalars: those of the objective, loss, gradient_norm, and
    `nonfinite` (1 where loss or gradient was not finite, and the state was left alone). `weights`
    as in `loss_and_gradients`."""
    given = settings, state.trainable, frozen, batch, objective, weights
    if settings.surgery or settings.own_moments:
        (task, alignment), metrics = gradients_apart(*given)
        metrics |= strengths(task, alignment)
        task = without_conflict(task, alignment) if settings.surgery else task
        gradients = jax.tree.map(jnp.add, task, alignment)
        optimized = (task, alignment) if settings.own_moments else gradients
    else:
        gradients, metrics = loss_and_gradients(*given)
        optimized = gradients
    norm = optax.global_norm(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradients))
    finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])

    def update():
        updates, moments = optimizer.update(optimized, state.optimizer, state.trainable)
        return TrainState(optax.apply_updates(state.trainable, updates), moments)

    state = jax.lax.cond(finite, update, lambda: state)
    return state, metrics | {"gradient_norm": norm, "nonfinite": 1.0 - finite}


def compiled_step(
    settings: StepSettings,
    optimizer: optax.GradientTransformation,
    placed: tuple[TrainState, dict] | None = None,
    objective: Objective = HYBRID,
    *,
    weighted: bool = False,
) -> Callable[..., tuple[TrainState, dict]]:
    """`train_step` jitted, (state, frozen, batch) -> (state, metrics); the state is donated, the
    frozen parameters never are. The same arguments give the same function: what is compiled for a
    run serves the next in its process.

    A `weighted` step takes a fourth argument, {term's name: weight}: other weights are no other
    program. On a mesh `placed` holds the shardings of (state, frozen), see `step_shardings`;
    batches are cut by rows, and the step is called where that mesh is in force.
    """
    places, structure = jax.tree.flatten(placed)
    return _compiled(settings, optimizer, objective, tuple(places), structure, weighted)


@functools.lru_cache(maxsize=16)
def _compiled(settings, optimizer, objective, places, structure, weighted):
    step = functools.partial(train_step, settings, optimizer, objective=objective)
    if not places:
        return jax.jit(step, donate_argnums=0)
    placed = jax.tree.unflatten(structure, places)
    mesh = places[0].mesh
    rows, everywhere = sharding(mesh, ("batch",)), sharding(mesh, ())
    return jax.jit(
        step,
        in_shardings=(*placed, rows, everywhere) if weighted else (*placed, rows),
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
