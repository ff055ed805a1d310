"""Frozen kernels in 8 bits and 4, cut over a mesh, say what they say on one device: in the training
step, with experts, and in decoding."""

import jax
import numpy as np
import pytest
from random_batches import assert_trees_close, random_batch

from emergent_alignment.generation.sampler import Sampler, sample, sampler_settings
from emergent_alignment.models.frozen import hold_frozen
from emergent_alignment.models.held_kernels import SCALES, Kernel
from emergent_alignment.models.lora import LoraConfig, attach, init_adapters
from emergent_alignment.models.placement import check_mesh, shardings_of
from emergent_alignment.parallel.mesh import in_force, make_mesh
from emergent_alignment.parallel.rows import to_devices, to_host
from emergent_alignment.randomness import row_keys
from emergent_alignment.training.step import loss_and_gradients
from emergent_alignment.training.step_settings import StepSettings

SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_heads": 8, "num_kv_heads": 4}
EXPERTS = {"num_experts": 4, "experts_per_token": 2, "expert_size": 128, "qk_norm": True}
TARGETS = ("query", "down", "expert_gate", "expert_down")
BATCH = jax.tree.map(np.asarray, random_batch(rows=8, seed=3))
SLOTS = 12
jitted = jax.jit(loss_and_gradients, static_argnums=0)


def model_of(tiny_config, tiny_params, experts: bool):
    """(config, parameters, the settings of a step, adapters that have moved)."""
    family, more = ("qwen3_moe", EXPERTS) if experts else ("llama", {})
    config = tiny_config(family, **SIZES, head_dim=16, **more)
    params, lora = tiny_params(config), LoraConfig(4, 8.0, targets=TARGETS)
    # Smaller than the other tests' parameters are: of 128 inputs they would saturate attention.
    params = jax.tree.map(lambda x: 0.3 * x if x.ndim > 2 else x, params)
    noise = np.random.default_rng(5)
    fresh = init_adapters(params, lora, jax.random.key(1))
    moved = jax.tree.map(lambda x: x + 0.05 * noise.standard_normal(x.shape, np.float32), fresh)
    return config, params, StepSettings(config, lora, chunk_size=16, remat="full"), moved


def cut(mesh, tree):
    return jax.device_put(tree, shardings_of(mesh, tree))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (4, 2, 1)], ids=str)
@pytest.mark.parametrize(("form", "experts"), [*((form, False) for form in SCALES), ("nf4", True)])
def test_a_mesh_changes_neither_what_is_held_nor_loss_nor_gradients(
    tiny_config, tiny_params, form, experts, sizes
):
    config, params, settings, adapters = model_of(tiny_config, tiny_params, experts)
    alone = hold_frozen(params, form)
    mesh = make_mesh(dict(zip(("data", "fsdp", "tensor"), sizes)))
    check_mesh(mesh, config, form)
    with in_force(mesh):
        held = hold_frozen(cut(mesh, params), form)
        found = jitted(settings, cut(mesh, adapters), held, to_devices(BATCH))
    assert_trees_close(jax.device_get(held), jax.device_get(alone), 0)
    for leaf, place in zip(jax.tree.leaves(held), jax.tree.leaves(shardings_of(mesh, held))):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim), leaf.shape
    for name, cuts in (("query", sizes[1:]), ("output", sizes[:0:-1])):
        kernel = Kernel.of(held["layers"][name])
        part, scale = kernel.numbers.addressable_data(0), kernel.scale.addressable_data(0)
        inputs, outputs = np.divide(kernel.numbers.shape[-2:], cuts)
        assert part.shape[-2:] == (inputs, outputs), name
        tiles = (kernel.scale.shape[-2] / cuts[0],) if kernel.is_tiled else ()
        assert scale.shape[1:] == (*tiles, outputs), name
    wanted = jitted(settings, adapters, alone, jax.tree.map(jax.numpy.asarray, BATCH))
    assert_trees_close(jax.device_get(found), jax.device_get(wanted), 1e-5)


@pytest.mark.parametrize("form", ["int4", "nf4"])
def test_decoding_on_a_mesh_says_the_same_in_four_bits(tiny_config, tiny_params, form):
    config, params, settings, adapters = model_of(tiny_config, tiny_params, experts=False)
    policy = attach(hold_frozen(params, form), adapters, settings.lora)
    tokens = np.random.default_rng(2).integers(3, 60, (8, 16)).astype(np.int32)
    lengths = np.array([16, 3, 9, 1, 12, 2, 5, 16], np.int32)
    given = tokens, lengths, row_keys(jax.random.key(3), np.arange(8))

    def sampled(mesh, policy):
        with in_force(mesh):
            *rows, keys = to_devices(given)
            drawn = Sampler(sampler_settings((2,), SLOTS), keys)
            return to_host(sample(config, policy, *rows, drawn, width=SLOTS))

    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    alone, found = sampled(None, policy), sampled(mesh, cut(mesh, policy))
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_allclose(found.log_probs, alone.log_probs, atol=2e-5)
