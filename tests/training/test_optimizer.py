"""The optimizer: moments in the dtype asked for, and AdamW in float32 as optax has it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emergent_alignment.settings import changed
from emergent_alignment.training.checkpoints import Checkpoints, RunIdentity
from emergent_alignment.training.optimizer import (
    OptimizerSection,
    is_matrix,
    learning_rate_schedule,
    make_optimizer,
    moments_in,
)
from emergent_alignment.training.state import TrainState

NUM_STEPS = 20
EVERY_KIND = pytest.mark.parametrize("kind", ["adamw", "adafactor"])
EVERY_DTYPE = pytest.mark.parametrize("moment_dtype", ["float32", "bfloat16"])


def settings(**changes):
    return changed(OptimizerSection(), changes)


def random_params(seed=0, dtype=jnp.float32):
    """Stacked layers with a factored kernel and a norm, an embedding, a final norm."""
    draw = np.random.default_rng(seed)
    shapes = {
        "layers": {"up": {"kernel": (3, 160, 192)}, "norm": {"scale": (3, 160)}},
        "embedding": (40, 160),
        "final_norm": (160,),
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(draw.standard_normal(shape), dtype),
        shapes,
        is_leaf=lambda shape: isinstance(shape, tuple),
    )


def quadratic(params):
    return sum((leaf.astype(jnp.float32) ** 2).mean() for leaf in jax.tree.leaves(params))


def stepper(optimizer):
    """(state) -> state after one jitted step on the quadratic; the state is donated."""

    def step(state):
        gradients = jax.grad(quadratic)(state.trainable)
        updates, moments = optimizer.update(gradients, state.optimizer, state.trainable)
        return TrainState(optax.apply_updates(state.trainable, updates), moments)

    return jax.jit(step, donate_argnums=0)


def fresh_state(optimizer, **arguments):
    params = random_params(**arguments)
    return TrainState(params, jax.jit(optimizer.init)(params))


def assert_bitwise_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, left), right in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        name = jax.tree_util.keystr(path)
        assert left.dtype == right.dtype, name
        np.testing.assert_array_equal(left, right, err_msg=name)


def moment_dtypes(state):
    return {leaf.dtype for leaf in jax.tree.leaves(state.optimizer) if leaf.dtype != jnp.int32}


@EVERY_KIND
@pytest.mark.parametrize(
    ("moment_dtype", "param_dtype"), [("float32", jnp.bfloat16), ("bfloat16", jnp.float32)]
)
def test_moments_are_held_in_the_dtype_asked_for_whatever_the_parameters_have(
    kind, moment_dtype, param_dtype
):
    optimizer = make_optimizer(settings(kind=kind, moment_dtype=moment_dtype), NUM_STEPS)
    state = fresh_state(optimizer, dtype=param_dtype)
    assert moment_dtypes(state) == {jnp.dtype(moment_dtype)}
    moved = stepper(optimizer)(state)
    assert moment_dtypes(moved) == {jnp.dtype(moment_dtype)}
    assert {leaf.dtype for leaf in jax.tree.leaves(moved.trainable)} == {jnp.dtype(param_dtype)}


@EVERY_KIND
@EVERY_DTYPE
def test_a_step_lowers_a_quadratic(kind, moment_dtype):
    optimizer = make_optimizer(
        settings(kind=kind, moment_dtype=moment_dtype, learning_rate=1e-2), NUM_STEPS
    )
    state, step = fresh_state(optimizer), stepper(optimizer)
    values = [quadratic(state.trainable)]
    for _ in range(NUM_STEPS):
        state = step(state)
        values.append(quadratic(state.trainable))
    assert (np.diff(values) < 0).all(), values


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_adamw_in_float32_is_bitwise_the_one_of_optax(clip_norm):
    chosen = settings(clip_norm=clip_norm)
    theirs = optax.adamw(
        learning_rate_schedule(chosen, NUM_STEPS),
        b1=chosen.b1,
        b2=chosen.b2,
        eps=chosen.epsilon,
        weight_decay=chosen.weight_decay,
        mask=is_matrix,
    )
    if clip_norm:
        theirs = optax.chain(optax.clip_by_global_norm(clip_norm), theirs)
    states = []
    for optimizer in (make_optimizer(chosen, NUM_STEPS), theirs):
        state, step = fresh_state(optimizer), stepper(optimizer)
        for _ in range(4):
            state = step(state)
        states.append(state)
    assert_bitwise_equal(*states)


def state_bytes(**changes):
    params = {"layers": {"up": {"kernel": jnp.zeros((4, 256, 512))}}}
    state = make_optimizer(settings(**changes), NUM_STEPS).init(params)
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def test_bfloat16_moments_take_half_and_factored_ones_next_to_nothing():
    whole = state_bytes()
    assert state_bytes(moment_dtype="bfloat16") == pytest.approx(whole / 2, rel=1e-3)
    assert state_bytes(kind="adafactor") < whole / 300
    assert state_bytes(kind="adafactor", moment_dtype="bfloat16") < whole / 600


@EVERY_KIND
@EVERY_DTYPE
def test_a_restored_state_goes_on_bitwise(tmp_path, kind, moment_dtype):
    optimizer = make_optimizer(settings(kind=kind, moment_dtype=moment_dtype), NUM_STEPS)
    state, step = fresh_state(optimizer), stepper(optimizer)
    state = step(step(state))
    checkpoints = Checkpoints(tmp_path, RunIdentity("frozen", "rows"))
    checkpoints.save(2, state, loss=1.0)
    checkpoints.wait()
    restored = checkpoints.restore(fresh_state(optimizer, seed=1))
    checkpoints.close()
    assert_bitwise_equal(restored, state)
    assert_bitwise_equal(step(step(restored)), step(step(state)))


@EVERY_KIND
def test_matrices_alone_are_decayed(kind):
    chosen = settings(kind=kind, weight_decay=0.5, learning_rate=0.1, warmup_steps=0)
    optimizer = make_optimizer(chosen, NUM_STEPS)
    state = fresh_state(optimizer)
    zeros = jax.tree.map(jnp.zeros_like, state.trainable)
    updates, _ = jax.jit(optimizer.update)(zeros, state.optimizer, state.trainable)
    expected = jax.tree.map(
        lambda leaf, decayed: -0.05 * leaf * decayed, state.trainable, is_matrix(state.trainable)
    )
    assert is_matrix(state.trainable) == {
        "layers": {"up": {"kernel": True}, "norm": {"scale": False}},
        "embedding": True,
        "final_norm": False,
    }
    for ours, by_hand in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, by_hand, rtol=1e-6)


def second_moments(dtype, gradients):
    """nu of Adam after these gradients (float32[steps]), the same for 512 parameters."""
    optimizer = moments_in(dtype, optax.scale_by_adam())
    params = jnp.zeros(512)

    def step(state, gradient):
        return optimizer.update(jnp.full(512, gradient), state, params)[1], None

    return jax.lax.scan(step, optimizer.init(params), gradients)[0].nu.astype(jnp.float32)


def test_a_bfloat16_second_moment_rises_and_falls_like_the_float32_one():
    gradients = jnp.concatenate([jnp.ones(1500), jnp.full(1500, 0.1)])
    for steps in (1500, 3000):
        exact = second_moments("float32", gradients[:steps])
        held = second_moments("bfloat16", gradients[:steps])
        np.testing.assert_allclose(held.mean(), exact.mean(), rtol=0.01)
        np.testing.assert_allclose(held, exact, rtol=0.3)


def test_rounding_to_the_nearest_would_not():
    """The trap that rounding at random is for: without it, this moment stands still."""

    def step(moment, gradient):
        exact = 0.999 * moment.astype(jnp.float32) + 0.001 * gradient**2
        return exact.astype(jnp.bfloat16), None

    risen = jax.lax.scan(step, jnp.zeros((), jnp.bfloat16), jnp.ones(3000))[0]
    assert risen < 0.6
    assert jax.lax.scan(step, risen, jnp.full(3000, 0.1))[0] == risen


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="optimizer.kind: 'sgd'; known: adamw, adafactor"):
        make_optimizer(settings(kind="sgd"), NUM_STEPS)
