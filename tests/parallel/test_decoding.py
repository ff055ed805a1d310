"""Decoding on a mesh: laid out for decoding it draws what one device draws, and what it gathers it
gathers once, not for every token."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from compilation import USERS_FUSIONS
from random_batches import assert_trees_close, random_batch

from emergent_alignment.errors import UserError
from emergent_alignment.generation.prefill import prefill
from emergent_alignment.generation.sampler import Sampler, decode, sample, sampler_settings, stages
from emergent_alignment.models.lora import LoraConfig, attach, init_adapters
from emergent_alignment.models.placement import check_mesh, shardings_of
from emergent_alignment.parallel.mesh import DecodeMeshSection, in_force, make_mesh
from emergent_alignment.parallel.rows import to_devices, to_host
from emergent_alignment.planning.hlo import program_cost
from emergent_alignment.randomness import row_keys
from emergent_alignment.training.state import initial_state
from emergent_alignment.training.step import compiled_step, step_shardings
from emergent_alignment.training.step_settings import StepSettings

AXES = ("data", "fsdp", "tensor")
# Sizes of the mesh, and of its tensor axis while it decodes.
LAYOUTS = [((2, 4, 1), 1), ((2, 4, 1), 4), ((1, 4, 2), 4)]
SLOTS, ROWS = 32, 8  # one stage of the loop: fewer to compile


def mesh_of(sizes, decode_tensor=0, devices=None):
    decode = DecodeMeshSection(tensor=decode_tensor)
    return make_mesh(dict(zip(AXES, sizes)), devices, decode)


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config("llama", num_heads=8, num_kv_heads=4)


@pytest.fixture(scope="module")
def policy(config, tiny_params):
    """A base with adapters that have moved."""
    params, lora = tiny_params(config), LoraConfig(4, 8.0)
    noise = np.random.default_rng(5)
    fresh = init_adapters(params, lora, jax.random.key(1))
    moved = jax.tree.map(lambda x: x + 0.05 * noise.standard_normal(x.shape, np.float32), fresh)
    return attach(params, moved, lora)


def inputs():
    """Prompts of uneven lengths, one of them none, and the keys that they draw from."""
    tokens = np.random.default_rng(2).integers(3, 60, (ROWS, 16)).astype(np.int32)
    lengths = np.array([16, 3, 9, 1, 12, 0, 5, 16], np.int32)
    return tokens, lengths, row_keys(jax.random.key(3), np.arange(ROWS))


def sampled(config, policy, *, mesh=None, temperature=0.8):
    settings = sampler_settings((2,), SLOTS, temperature=temperature, top_p=0.95)
    with in_force(mesh):
        tokens, lengths, keys = to_devices(inputs())
        options = {"width": SLOTS}
        return to_host(sample(config, policy, tokens, lengths, Sampler(settings, keys), **options))


@pytest.mark.parametrize(("sizes", "decode_tensor"), LAYOUTS)
def test_laid_out_for_decoding_the_tokens_and_log_probs_are_those_of_one_device(
    config, policy, sizes, decode_tensor
):
    alone = sampled(config, policy)
    mesh = mesh_of(sizes, decode_tensor)
    cut = jax.device_put(policy, shardings_of(mesh, policy))
    found = sampled(config, cut, mesh=mesh)
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_array_equal(found.lengths, alone.lengths)
    np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=2e-5)
    assert alone.lengths.max() == SLOTS and alone.lengths[5] == 0


def test_on_a_mesh_too_windowed_layers_go_round_their_window(config, policy):
    """… of which prompts and answers have several."""
    windowed = dataclasses.replace(config, layer_windows=(5, None))
    alone = sampled(windowed, policy)
    mesh = mesh_of((1, 4, 2), 4)
    found = sampled(windowed, jax.device_put(policy, shardings_of(mesh, policy)), mesh=mesh)
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=2e-5)
    assert (alone.tokens != sampled(config, policy).tokens).any()


def lowered_decode(config, policy, mesh):
    params = jax.device_put(policy, shardings_of(mesh, policy))
    settings = sampler_settings((2,), SLOTS)
    with in_force(mesh):
        tokens, lengths, keys = to_devices(inputs())
        prompts = prefill(config, params, tokens, lengths)
        sampler = Sampler(settings, keys[:, None])
        return decode.lower(config, params, prompts, sampler, lengths > 0, width=SLOTS)


@functools.cache
def trips():
    ends = [min(slots, SLOTS - 1) for slots in stages(SLOTS)]
    return np.diff([0, *ends]).tolist()


def test_without_a_tensor_axis_a_token_takes_one_collective_at_most(config, policy):
    """That one asks whether all rows have ended. What is gathered once, at the entry, is a leaf of
    the parameters each."""
    lowered = lowered_decode(config, policy, mesh_of((2, 4, 1)))
    text = lowered.compile(compiler_options=USERS_FUSIONS).as_text()
    calls = program_cost(text, trips=trips()).calls
    assert calls["all-gather"] <= len(jax.tree.leaves(policy))
    assert calls.total() - calls["all-gather"] <= SLOTS


@pytest.mark.parametrize(
    ("sizes", "decode", "said"),
    [
        ((2, 4, 1), DecodeMeshSection(tensor=3), "data=8, tensor=1; data=4, tensor=2; data=2, ten"),
        ((2, 4, 1), DecodeMeshSection(data=8, tensor=2), "none of those"),
        ((1, 8, 1), DecodeMeshSection(tensor=8), "`layers.key.kernel` has 4 kv_heads on that axis"),
    ],
)
def test_a_mesh_to_decode_on_that_does_not_fit_is_refused(config, sizes, decode, said):
    with pytest.raises(UserError) as caught:
        check_mesh(make_mesh(dict(zip(AXES, sizes)), decode=decode), config)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def trained(config, tiny_params, mesh):
    """Adapters after ten steps of the hybrid loss."""
    settings = StepSettings(config, LoraConfig(4, 8.0), chunk_size=16)
    optimizer, params = optax.adamw(1e-2), tiny_params(config)
    frozen = jax.device_put(params, shardings_of(mesh, params))
    with in_force(mesh):
        state = initial_state(frozen, settings.lora, optimizer, 0, mesh)
        step = compiled_step(settings, optimizer, step_shardings(mesh, state, frozen))
        for number in range(10):
            batch = jax.tree.map(np.asarray, random_batch(rows=8, seed=number))
            state, _ = step(state, frozen, to_devices(batch))
        return jax.device_get(state.trainable)


def test_adapters_after_ten_steps_do_not_depend_on_the_order_of_the_devices(config, tiny_params):
    devices = jax.devices()
    shuffled = [devices[i] for i in (5, 2, 7, 0, 3, 6, 1, 4)]
    orders = [mesh_of((2, 2, 2), devices=order) for order in (devices, shuffled)]
    assert (orders[0].devices != orders[1].devices).any()
    first, second = (trained(config, tiny_params, mesh) for mesh in orders)
    assert_trees_close(first, second, 1e-6)
