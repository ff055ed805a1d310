"""The training step computes the same on every mesh, and cuts everything that it should."""

import jax
import numpy as np
import optax
import pytest
from random_batches import assert_trees_close, random_batch

from emergent_alignment.models.lora import LoraConfig, init_adapters
from emergent_alignment.models.placement import shardings_of
from emergent_alignment.parallel.mesh import in_force, make_mesh
from emergent_alignment.parallel.rows import to_devices
from emergent_alignment.training.state import TrainState, fingerprint, initial_state
from emergent_alignment.training.step import compiled_step, loss_and_gradients, step_shardings
from emergent_alignment.training.step_settings import StepSettings

BATCH = jax.tree.map(np.asarray, random_batch(rows=32, seed=3))
jitted = jax.jit(loss_and_gradients, static_argnums=0)


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config("llama", num_heads=8, num_kv_heads=8)


def settings_of(config, full, accumulation=1):
    lora = None if full else LoraConfig(4, 8.0)
    return StepSettings(config, lora, chunk_size=16, accumulation=accumulation, remat="full")


def moved(params, full):
    """Trainable parameters that have moved away from the frozen ones."""
    if full:
        return jax.tree.map(lambda x: x * 1.01, params)
    noise = np.random.default_rng(5)
    fresh = init_adapters(params, LoraConfig(4, 8.0), jax.random.key(1))
    return jax.tree.map(lambda x: x + 0.05 * noise.standard_normal(x.shape, np.float32), fresh)


@pytest.fixture(scope="module")
def on_one_device(config, tiny_params):
    params = tiny_params(config)
    return {
        full: jax.device_get(jitted(settings_of(config, full), moved(params, full), params, BATCH))
        for full in (True, False)
    }


@pytest.mark.parametrize("full", [True, False], ids=["full", "lora"])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize(
    "sizes", [(1, 8, 1), (2, 2, 2), (1, 1, 8), (8, 1, 1)], ids=lambda of: "x".join(map(str, of))
)
def test_loss_and_gradients_do_not_change_with_the_mesh(
    config, tiny_params, on_one_device, sizes, accumulation, full
):
    """… nor with accumulation, with rows of uneven lengths and shards of uneven numbers of
    pairs."""
    mesh = make_mesh(dict(zip(("data", "fsdp", "tensor"), sizes)))
    params = tiny_params(config)
    trainable = moved(params, full)
    frozen = jax.device_put(params, shardings_of(mesh, params))
    trainable = jax.device_put(trainable, shardings_of(mesh, trainable))
    with in_force(mesh):
        found = jitted(
            settings_of(config, full, accumulation), trainable, frozen, to_devices(BATCH)
        )
    assert_trees_close(jax.device_get(found), on_one_device[full], 1e-5)


@pytest.mark.parametrize("full", [True, False], ids=["full", "lora"])
def test_a_step_keeps_everything_where_it_lies(config, tiny_params, full):
    """Parameters, gradients' moments and adapters are cut on the way in and on the way out."""
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    settings, optimizer = settings_of(config, full), optax.adamw(1e-3)
    params = tiny_params(config)
    frozen = jax.device_put(params, shardings_of(mesh, params))
    with in_force(mesh):
        state = initial_state(frozen, settings.lora, optimizer, 0, mesh)
        placed = step_shardings(mesh, state, frozen)
        after, _ = compiled_step(settings, optimizer, placed)(state, frozen, to_devices(BATCH))
    kernels = [
        leaf
        for leaf in jax.tree.leaves((after, frozen))
        if leaf.ndim == 3 and min(leaf.shape[1:]) > 4
    ]
    assert kernels
    for leaf in kernels:
        assert leaf.addressable_data(0).size == leaf.size // 4, leaf.sharding
    for leaf, where in zip(jax.tree.leaves(after), jax.tree.leaves(placed[0]), strict=True):
        assert leaf.sharding.is_equivalent_to(where, leaf.ndim)


def test_weights_of_terms_move_with_no_other_program(config, tiny_params):
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    settings, optimizer = settings_of(config, False), optax.sgd(0.0)
    params = tiny_params(config)
    frozen = jax.device_put(params, shardings_of(mesh, params))
    with in_force(mesh):
        state = initial_state(frozen, settings.lora, optimizer, 0, mesh)
        placed = step_shardings(mesh, state, frozen)
        step = compiled_step(settings, optimizer, placed, weighted=True)
        found = []
        for weight in (1.0, 3.0):
            state, metrics = step(state, frozen, to_devices(BATCH), {"alignment_loss": weight})
            found.append(jax.device_get(metrics))
    assert step._cache_size() == 1
    added = found[1]["loss"] - found[0]["loss"]
    np.testing.assert_allclose(added, 2 * found[0]["alignment_loss"], rtol=1e-5)


def test_factored_moments_are_cut_like_what_they_belong_to(config, tiny_params):
    mesh = make_mesh({"data": 1, "fsdp": 4, "tensor": 2})
    params = tiny_params(config)
    optimizer = optax.scale_by_factored_rms(min_dim_size_to_factor=4)
    state = initial_state(params, None, optimizer, 0, mesh)
    rows = state.optimizer.v_row["layers"]["up"]["kernel"]
    columns = state.optimizer.v_col["layers"]["up"]["kernel"]
    assert {rows.addressable_data(0).size / rows.size} <= {1 / 2, 1 / 4}
    assert rows.addressable_data(0).size * 4 <= rows.size * 2
    assert columns.addressable_data(0).size * 2 <= columns.size


def test_a_fresh_state_and_a_fingerprint_do_not_depend_on_the_mesh(config, tiny_params):
    params = tiny_params(config)
    mesh = make_mesh({"data": 1, "fsdp": 4, "tensor": 2})
    sharded = jax.device_put(params, shardings_of(mesh, params))
    assert fingerprint(sharded) == fingerprint(params)
    lora, optimizer = LoraConfig(4, 8.0), optax.adamw(1e-3)
    alone = initial_state(params, lora, optimizer, 0)
    assert_trees_close(initial_state(sharded, lora, optimizer, 0, mesh), alone, 0)


def test_a_state_is_a_copy(config, tiny_params):
    """Donating the state leaves the frozen parameters alone."""
    mesh = make_mesh({"data": 2, "fsdp": 4, "tensor": 1})
    params = tiny_params(config)
    frozen = jax.device_put(params, shardings_of(mesh, params))
    settings, optimizer = settings_of(config, True), optax.sgd(0.1)
    before = fingerprint(frozen)
    with in_force(mesh):
        state = initial_state(frozen, None, optimizer, 0, mesh)
        step = compiled_step(settings, optimizer, step_shardings(mesh, state, frozen))
        after, _ = step(TrainState(state.trainable, state.optimizer), frozen, to_devices(BATCH))
    assert fingerprint(frozen) == before != fingerprint(after.trainable)
