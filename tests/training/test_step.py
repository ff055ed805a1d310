"""The truths of the pure training step, on a tiny random model."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilation import USERS_FUSIONS
from random_batches import assert_trees_close, random_batch
from walk_jaxpr import array_shapes, rows_through

from emergent_alignment.data.batches import ROLES
from emergent_alignment.models.lora import LoraConfig, init_adapters
from emergent_alignment.training.branches import pair_log_probs
from emergent_alignment.training.optimizer import OptimizerSection, make_optimizer
from emergent_alignment.training.state import TrainState, initial_state
from emergent_alignment.training.step import compiled_step
from emergent_alignment.training.step import loss_and_gradients as traced_loss_and_gradients
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.terms import HYBRID

loss_and_gradients = jax.jit(traced_loss_and_gradients, static_argnums=0)

OPTIMIZER = optax.adamw(1e-2)


@pytest.fixture(scope="module")
def settings(tiny_config):
    return StepSettings(tiny_config("llama"), LoraConfig(4, 8.0), chunk_size=16)


@pytest.fixture(scope="module")
def frozen(settings, tiny_params):
    return tiny_params(settings.config)


@pytest.fixture
def adapters(settings, frozen):
    """Adapters that have moved away from the base."""
    fresh = init_adapters(frozen, settings.lora, jax.random.key(1))
    noise = np.random.default_rng(5)
    return jax.tree.map(lambda x: x + 0.05 * noise.standard_normal(x.shape), fresh)


def fresh_state(trainable) -> TrainState:
    """A copy, since a step takes its state over."""
    trainable = jax.tree.map(jnp.copy, trainable)
    return TrainState(trainable, OPTIMIZER.init(trainable))


@pytest.fixture(scope="module")
def programs(settings, frozen):
    """{whether all parameters are trained: the compiled step}, which the tests share."""

    @functools.cache
    def compiled(full: bool):
        own = dataclasses.replace(settings, lora=None) if full else settings
        fresh = frozen if full else init_adapters(frozen, own.lora, jax.random.key(1))
        step = compiled_step(own, OPTIMIZER)
        lowered = step.lower(fresh_state(fresh), frozen, random_batch())
        return step, lowered.compile(compiler_options=USERS_FUSIONS)

    return compiled


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_changes_neither_loss_nor_gradients(
    settings, frozen, adapters, accumulation, full
):
    if full:
        settings = dataclasses.replace(settings, lora=None)
    trainable = jax.tree.map(lambda x: x * 1.01, frozen) if full else adapters
    batch = random_batch()
    whole = loss_and_gradients(settings, trainable, frozen, batch)
    split = dataclasses.replace(settings, accumulation=accumulation)
    assert_trees_close(loss_and_gradients(split, trainable, frozen, batch), whole, 1e-5)


def test_alignment_loss_is_log_two_at_step_zero(settings, frozen):
    adapters = init_adapters(frozen, settings.lora, jax.random.key(1))
    batch = dataclasses.replace(random_batch(), pair_mask=jnp.ones(8, bool))
    loss = jax.jit(HYBRID.loss, static_argnums=0)
    _, metrics = loss(settings, adapters, frozen, batch, HYBRID.counts(batch))
    np.testing.assert_allclose(metrics["alignment_loss"], np.log(2), rtol=1e-6)
    assert metrics["kl"] == 0.0


def test_reference_in_the_batch_equals_reference_in_the_step(settings, frozen, adapters):
    batch = random_batch()
    reference = jax.jit(pair_log_probs, static_argnums=0)(settings, frozen, batch)
    brought = dataclasses.replace(batch, reference=reference)
    computed = loss_and_gradients(settings, adapters, frozen, batch)
    assert_trees_close(loss_and_gradients(settings, adapters, frozen, brought), computed, 1e-6)


@pytest.mark.parametrize("name", ["target is rejected", "target is chosen"])
def test_target_that_is_also_another_branch_is_computed_once_with_the_same_loss(
    settings, frozen, adapters, name
):
    roles = ROLES[name]
    two = dataclasses.replace(random_batch(branches=2), roles=roles)
    places = jnp.array([roles.target, roles.chosen, roles.rejected])
    three = dataclasses.replace(
        two,
        branches=two.branches[:, places],
        branch_lengths=two.branch_lengths[:, places],
        roles=ROLES["separate"],
    )
    ours = loss_and_gradients(settings, adapters, frozen, two)
    assert_trees_close(ours, loss_and_gradients(settings, adapters, frozen, three), 1e-5)


def test_runs_of_the_same_settings_share_their_compiled_step_and_others_do_not(settings):
    """So the seeds of an experiment compile once."""

    def step(**changes):
        section = dataclasses.replace(OptimizerSection(), **changes)
        return compiled_step(dataclasses.replace(settings), make_optimizer(section, 7))

    assert step() is step()
    assert step() is not step(learning_rate=0.5)
    assert step() is not compiled_step(settings, make_optimizer(OptimizerSection(), 8))


@pytest.mark.parametrize("committed", [False, True])
def test_a_step_is_compiled_once_whether_or_not_the_parameters_are_bound_to_a_device(
    settings, frozen, committed
):
    """Those of a restored run are; its state must not become so with the first step."""
    if committed:
        layers = jax.device_put(frozen["layers"], jax.devices()[0])
        frozen = frozen | {"layers": layers}
    optimizer = optax.sgd(0.1)
    state = initial_state(frozen, settings.lora, optimizer, seed=0)
    step = compiled_step(settings, optimizer)
    for _ in range(2):
        state, _ = step(state, frozen, random_batch())
    assert step._cache_size() == 1


def traced(function, *inputs):
    return jax.make_jaxpr(function)(*inputs).jaxpr


@pytest.mark.parametrize("branches", [1, 2, 3])
def test_every_token_is_computed_once_and_answers_alone_meet_the_vocabulary(
    settings, frozen, adapters, branches
):
    """… and the frozen copy computes nothing where the batch brings its log-probs."""
    config = settings.config
    batch = random_batch(branches=branches)
    if branches == 2:
        batch = dataclasses.replace(batch, roles=ROLES["target is rejected"])
    brought = dataclasses.replace(batch, reference=jnp.zeros((8, 2)))
    down = (config.intermediate_size, config.hidden_size)
    vocabulary = (config.hidden_size, config.vocab_size)
    positions = config.num_layers * (batch.prompt.size + batch.branches.size)
    answers = -(-batch.branches.size // settings.chunk_size) * settings.chunk_size

    def gradients(adapters, frozen, batch):
        return traced_loss_and_gradients(settings, adapters, frozen, batch)

    with_reference = traced(gradients, adapters, frozen, brought)
    assert rows_through(with_reference, down) == positions
    # The backward pass makes each chunk's logits again.
    assert rows_through(with_reference, vocabulary) == 2 * answers
    without = traced(gradients, adapters, frozen, batch)
    frozen_passes = 0 if branches == 1 else 1
    assert rows_through(without, down) == (1 + frozen_passes) * positions
    assert rows_through(without, vocabulary) == (2 + frozen_passes) * answers


@pytest.mark.parametrize("full", [False, True])
def test_no_array_of_tokens_by_vocabulary_is_in_the_step(
    settings, frozen, adapters, programs, full
):
    """Neither as it is traced nor as it is compiled; the state is updated where it lies."""
    step, program = programs(full)
    state, batch = fresh_state(frozen if full else adapters), random_batch()
    vocabulary, width = settings.config.vocab_size, settings.config.hidden_size
    written = re.findall(r"\w\d+\[([\d,]+)\]", program.as_text())
    shapes = array_shapes(traced(step, state, frozen, batch))
    shapes += [tuple(map(int, shape.split(","))) for shape in written]
    largest = max(math.prod(shape) for shape in shapes if vocabulary in shape)
    # The largest array with a vocabulary axis is a chunk of logits or the unembedding itself.
    assert largest == max(settings.chunk_size, width) * vocabulary
    assert largest < batch.branches.size * vocabulary

    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert program.memory_analysis().alias_size_in_bytes >= held
    program(state, frozen, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.trainable))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(frozen))


def test_frozen_parameters_get_no_gradient_and_stay_the_same(settings, frozen, adapters, programs):
    batch = random_batch()

    def through_reference(parameters):
        full = dataclasses.replace(settings, lora=None)
        trained = jax.tree.map(lambda x: x * 1.01, frozen)
        return HYBRID.loss(full, trained, parameters, batch, HYBRID.counts(batch))[0]

    gradients = jax.jit(jax.grad(through_reference))(frozen)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients))

    before = jax.tree.map(np.array, frozen)
    state, (_, step) = fresh_state(adapters), programs(False)
    for seed in range(3):
        state, _ = step(state, frozen, random_batch(seed=seed))
    for left, right in zip(jax.tree.leaves(before), jax.tree.leaves(frozen)):
        np.testing.assert_array_equal(left, right)


def test_a_loss_that_is_not_finite_leaves_the_state_bitwise_alone(frozen, adapters, programs):
    _, step = programs(False)
    state, metrics = step(fresh_state(adapters), frozen, random_batch(seed=1))
    assert metrics["nonfinite"] == 0
    before = jax.tree.map(np.array, state)
    broken = jax.tree.map(lambda x: x, frozen) | {"final_norm": frozen["final_norm"] * jnp.nan}
    state, metrics = step(state, broken, random_batch(seed=2))
    assert metrics["nonfinite"] == 1
    for left, right in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(left, right)
    state, metrics = step(state, frozen, random_batch(seed=2))
    assert metrics["nonfinite"] == 0


def test_the_step_lowers_the_loss_and_moves_chosen_over_rejected(settings, frozen, programs):
    state = fresh_state(init_adapters(frozen, settings.lora, jax.random.key(1)))
    _, step = programs(False)
    batch = random_batch()
    history = []
    for _ in range(30):
        state, metrics = step(state, frozen, batch)
        history.append(jax.device_get(metrics))
    assert history[-1]["task_loss"] < history[0]["task_loss"]
    assert history[-1]["alignment_loss"] < history[0]["alignment_loss"]
    assert history[-1]["rewards_margin"] > history[0]["rewards_margin"]
