"""The optimizer: moments in the dtype asked for, and AdamW in float32 as optax has it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emergent_alignment.config import default_config
from emergent_alignment.settings import changed
from emergent_alignment.training.checkpoints import Checkpoints, RunIdentity
from emergent_alignment.training.optimizer import (
    OptimizerSection,
    arriving,
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
    of_experts = {"layers": {"down": {"bias": jnp.zeros((2, 3, 4))}}}
    assert is_matrix(of_experts) == {"layers": {"down": {"bias": False}}}
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


def moved_by(dtype, steps=50, **changes):
    """What a steady gradient does to 64 × 64 weights of a usual size, as float32."""
    constant = {"schedule": "constant", "warmup_steps": 1, "weight_decay": 0.0}
    optimizer = make_optimizer(settings(**({"learning_rate": 1e-5} | constant | changes)), steps)
    weights = np.random.default_rng(0).normal(scale=0.02, size=(1, 64, 64))
    start = {"layers": {"up": {"kernel": jnp.asarray(weights, dtype)}}}
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), start)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    carry = jax.jit(lambda carry: jax.lax.scan(step, carry, None, steps)[0])
    end, _ = carry((start, optimizer.init(start)))
    assert jax.tree.leaves(end)[0].dtype == dtype
    return np.asarray(
        jax.tree.leaves(end)[0].astype(jnp.float32) - jax.tree.leaves(start)[0].astype(jnp.float32)
    )


@EVERY_KIND
@EVERY_DTYPE
@pytest.mark.parametrize("param_dtype", [jnp.bfloat16, jnp.float16])
def test_a_steady_move_arrives_in_parameters_of_16_bits(kind, moment_dtype, param_dtype):
    asked = {"kind": kind, "moment_dtype": moment_dtype}
    exact, held = moved_by(jnp.float32, **asked), moved_by(param_dtype, **asked)
    spread = held.std() / held.size**0.5
    assert abs(held.mean() - exact.mean()) < 4 * spread < 0.1 * abs(exact.mean())


def test_a_decay_smaller_than_the_last_bit_arrives():
    decay = {"learning_rate": 1e-4, "weight_decay": 0.1, "clip_norm": 0.0}
    without = decay | {"weight_decay": 0.0}
    moves = [moved_by(jnp.bfloat16, 200, **changes) for changes in (decay, without)]
    exact = [moved_by(jnp.float32, 200, **changes) for changes in (decay, without)]
    expected = (exact[0] - exact[1]).ravel()
    found = (moves[0] - moves[1]).ravel()
    assert found @ expected / (expected @ expected) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parameters_that_do_not_move_stay_bitwise(dtype):
    powers = 2.0 ** np.arange(-30, 12)
    start = jnp.asarray(np.concatenate([powers, -powers, [0.0], powers * 1.37]), dtype)
    optimizer = arriving(optax.sgd(optax.constant_schedule(0.5)))
    updates, _ = jax.jit(optimizer.update)(start * 0, optimizer.init(start), start)
    np.testing.assert_array_equal(optax.apply_updates(start, updates), start)


def test_float32_parameters_have_the_program_without_rounding():
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    params = random_params()
    texts = [
        jax.jit(lambda *given, own=own: own.update(*given))
        .lower(params, inner.init(params), params)
        .as_text()
        for own in (inner, arriving(inner))
    ]
    assert texts[0] == texts[1]


@EVERY_KIND
def test_a_restored_state_of_bfloat16_parameters_goes_on_bitwise(kind):
    """The count alone decides how parameters are rounded."""
    optimizer = make_optimizer(settings(kind=kind, moment_dtype="bfloat16"), NUM_STEPS)
    state, step = fresh_state(optimizer, dtype=jnp.bfloat16), stepper(optimizer)
    state = step(step(state))
    kept = jax.tree.map(np.asarray, state)
    assert_bitwise_equal(stepper(optimizer)(jax.tree.map(jnp.asarray, kept)), step(state))


def test_settings_may_be_a_config_files():
    config = default_config().optimizer
    assert make_optimizer(config, 7) is make_optimizer(OptimizerSection(), 7)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="optimizer.kind: 'sgd'; known: adamw, adafactor"):
        make_optimizer(settings(kind="sgd"), NUM_STEPS)
