"""The gradients of the task and of the alignment, each for itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_batches import assert_trees_close, random_batch

from emergent_alignment.training.optimizer import OptimizerSection, make_optimizer
from emergent_alignment.training.state import TrainState
from emergent_alignment.training.step import gradients_apart, loss_and_gradients, train_step
from emergent_alignment.training.two_gradients import (
    inner_product,
    moments_apart,
    strengths,
    without_conflict,
)

NUMBERS = st.integers(-1000, 1000).map(lambda n: n / 100)
VECTORS = st.lists(NUMBERS, min_size=4, max_size=4).map(
    lambda values: {"a": jnp.array(values[:1]), "b": jnp.array(values[1:])}
)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_both_together_are_the_gradient_of_the_loss(settings, frozen, adapters, accumulation):
    settings = dataclasses.replace(settings, accumulation=accumulation)
    batch = random_batch()
    (task, alignment), apart = jax.jit(gradients_apart, static_argnums=0)(
        settings, adapters, frozen, batch
    )
    whole, together = jax.jit(loss_and_gradients, static_argnums=0)(
        settings, adapters, frozen, batch
    )
    assert_trees_close(jax.tree.map(jnp.add, task, alignment), whole, 1e-5)
    np.testing.assert_allclose(apart["loss"], together["loss"], rtol=1e-6)
    assert inner_product(task, task) > 0 and inner_product(alignment, alignment) > 0


@given(VECTORS, VECTORS)
def test_after_surgery_the_task_pulls_against_nothing(task, alignment):
    kept = without_conflict(task, alignment)
    size = float(inner_product(task, task) * inner_product(alignment, alignment)) ** 0.5
    assert inner_product(kept, alignment) >= -1e-5 * max(size, 1e-6)
    if inner_product(task, alignment) >= 0:
        for name in task:
            np.testing.assert_array_equal(kept[name], task[name])
    # What is left is orthogonal to what went: nothing else is taken away.
    gone = jax.tree.map(jnp.subtract, task, kept)
    assert abs(float(inner_product(gone, kept))) <= 1e-4 * max(size, 1e-3)


@given(VECTORS)
def test_the_cosine_is_one_minus_one_or_nothing(vector):
    opposite, nothing = ({k: v * sign for k, v in vector.items()} for sign in (-2, 0))
    if inner_product(vector, vector) > 1e-6:
        assert strengths(vector, vector)["gradient_cosine"] == pytest.approx(1, abs=1e-5)
        assert strengths(vector, opposite)["gradient_cosine"] == pytest.approx(-1, abs=1e-5)
    assert strengths(vector, nothing)["gradient_cosine"] == 0


def test_moments_of_their_own_add_up_and_leave_the_task_alone_where_nothing_aligns():
    section = OptimizerSection(learning_rate=0.1, warmup_steps=0, clip_norm=1.0)
    shared = make_optimizer(section, 10)
    own = make_optimizer(dataclasses.replace(section, moments="own"), 10)
    params = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}
    gradient = {"w": jnp.linspace(0.3, -0.7, 6).reshape(2, 3)}
    nothing = jax.tree.map(jnp.zeros_like, gradient)
    alone, _ = shared.update(gradient, shared.init(params), params)
    both, _ = own.update((gradient, nothing), own.init(params), params)
    assert_trees_close(both, alone, 1e-6)
    # A gradient a thousand times smaller moves as far: Adam's moments are its own.
    small = jax.tree.map(lambda g: g * 1e-3, gradient)
    moved, _ = own.update((gradient, small), own.init(params), params)
    drowned, _ = shared.update(jax.tree.map(jnp.add, gradient, small), shared.init(params), params)
    assert_trees_close(drowned, alone, 1e-2)
    undecayed, _ = make_optimizer(dataclasses.replace(section, weight_decay=0.0), 10).update(
        small, shared.init(params), params
    )
    assert_trees_close(moved, jax.tree.map(jnp.add, alone, undecayed), 1e-5)


def test_two_optimizers_keep_two_states():
    optimizer = moments_apart(optax.sgd(1.0), optax.sgd(0.5))
    params = {"w": jnp.ones(2)}
    updates, _ = optimizer.update(({"w": jnp.ones(2)}, {"w": jnp.ones(2)}), optimizer.init(params))
    np.testing.assert_array_equal(updates["w"], -1.5)


@pytest.mark.parametrize("wanted", [{"surgery": True}, {"own_moments": True}])
def test_a_step_says_how_the_two_lie_to_each_other(settings, frozen, adapters, wanted):
    section = OptimizerSection(moments="own" if "own_moments" in wanted else "shared")
    optimizer = make_optimizer(section, 4)
    state = TrainState(adapters, optimizer.init(adapters))
    settings = dataclasses.replace(settings, **wanted)
    after, metrics = jax.jit(lambda s, b: train_step(settings, optimizer, s, frozen, b))(
        state, random_batch()
    )
    assert -1 <= metrics["gradient_cosine"] <= 1 and metrics["gradient_norm_alignment"] > 0
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), after.trainable, adapters)
    assert max(map(float, jax.tree.leaves(moved))) > 0
