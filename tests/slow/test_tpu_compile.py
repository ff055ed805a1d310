"""What a TPU would run, compiled for a v5e topology by libtpu on a machine without a TPU."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from emergent_alignment.data.batches import Batch
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.forward import forward
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.models.model import random_params
from emergent_alignment.models.prefix_attention import prefix_plan
from emergent_alignment.parallel.chips import TPUS, peak_flops
from emergent_alignment.parallel.mesh import make_mesh
from emergent_alignment.training.optimizer import OptimizerSection, make_optimizer
from emergent_alignment.training.state import initial_state
from emergent_alignment.training.step import compiled_step
from emergent_alignment.training.step_settings import StepSettings

pytest.importorskip("libtpu", reason="libtpu is not installed; `make plan` installs and uses it")

KERNELS = ("splash_mha_fwd_segmented_residuals", "splash_mha_dq", "splash_mha_dkv")


@pytest.fixture(scope="module")
def chips_of():
    """chips_of(topology, num_slices=1): devices that are not there."""
    # Without it libtpu asks a metadata server, which only machines with a TPU have.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

    def devices(topology, num_slices=1):
        return topologies.get_topology_desc(topology, "tpu", num_slices=num_slices).devices

    return devices


@pytest.fixture(scope="module")
def placed(chips_of):
    """placed(shape, dtype): such an array on one chip of sixteen, as far as a compiler cares."""
    chips = chips_of("v5e:4x4")
    return functools.partial(jax.ShapeDtypeStruct, sharding=SingleDeviceSharding(chips[0]))


def assert_compiles_with_the_kernels(jitted, *shapes) -> None:
    text = jitted.lower(*shapes).compile().as_text()
    assert "tpu_custom_call" in text
    missing = [kernel for kernel in KERNELS if kernel not in text]
    assert not missing, f"compiled without {missing}"


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_the_data_sheet_of_a_chip_is_found_by_what_jax_calls_it(chips_of, topology):
    assert peak_flops(chips_of(topology)) == 4 * TPUS[topology.partition(":")[0]].peak_flops


def test_a_mesh_over_two_slices_keeps_each_copy_of_the_model_within_one(chips_of):
    mesh = make_mesh({"data": -1, "fsdp": 2}, chips_of("v5e:2x2", num_slices=2))
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    np.testing.assert_array_equal(slices[:, :, 0, 0, 0], [[0, 0], [0, 0], [1, 1], [1, 1]])
    assert make_mesh({"data": -1, "fsdp": 2}, chips_of("v5e:2x2")).devices.shape == (2, 2, 1, 1, 1)


@pytest.mark.parametrize(
    ("layout", "heads", "head_dim", "dtype"),
    [
        (PrefixLayout(256, 3, 128), (9, 3), 64, jnp.bfloat16),
        (PrefixLayout(100, 2, 70), (4, 4), 80, jnp.float32),
        (PrefixLayout(2048, 3, 1024), (8, 1), 256, jnp.bfloat16),
        (PrefixLayout(1024, 2, 512), (8, 2), 128, jnp.float32),
    ],
)
def test_splash_attention_and_its_gradient_compile(placed, layout, heads, head_dim, dtype):
    tokens = layout.prompt + layout.branches * layout.branch

    def total(query, key, value, prompt_lengths):
        plan = prefix_plan(layout, prompt_lengths, "splash")
        output, _ = plan(0, query, key, value, None)
        return jnp.square(output.astype(jnp.float32)).sum()

    many, few = ((2, tokens, count, head_dim) for count in heads)
    arrays = [placed(shape, dtype) for shape in (many, few, few)]
    assert_compiles_with_the_kernels(
        jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2))), *arrays, placed((2,), jnp.int32)
    )


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_the_scanned_decoder_with_splash_attention_and_its_gradient_compile(
    placed, tiny_config, remat
):
    config = tiny_config("qwen3", hidden_size=256, head_dim=64)
    layout = PrefixLayout(256, 3, 128)
    params = jax.tree.map(
        lambda leaf: placed(leaf.shape, leaf.dtype), jax.eval_shape(lambda: random_params(config))
    )

    def total(params, tokens, prompt_lengths):
        plan = prefix_plan(layout, prompt_lengths, "splash")
        positions = layout.positions(prompt_lengths)
        options = {"dtype": jnp.bfloat16, "remat": remat}
        hidden, _ = forward(config, params, tokens, positions, plan, **options)
        return jnp.square(hidden.astype(jnp.float32)).mean()

    row = placed((2, 256 + 3 * 128), jnp.int32)
    assert_compiles_with_the_kernels(
        jax.jit(jax.value_and_grad(total)), params, row, placed((2,), jnp.int32)
    )


@pytest.mark.parametrize("lora", [LoraConfig(16, 32.0), None], ids=["lora", "full"])
def test_the_whole_training_step_with_splash_attention_compiles(placed, tiny_config, lora):
    sizes = {"vocab_size": 512, "hidden_size": 256, "intermediate_size": 384, "head_dim": 128}
    settings = StepSettings(
        tiny_config("llama", **sizes), lora, jnp.bfloat16, remat="full", attention="splash"
    )
    optimizer = make_optimizer(OptimizerSection(), 100)
    frozen = jax.eval_shape(lambda: random_params(settings.config))
    state = jax.eval_shape(lambda params: initial_state(params, lora, optimizer, 0), frozen)
    state, frozen = jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), (state, frozen))
    batch = Batch(
        prompt=placed((2, 256), jnp.int32),
        prompt_lengths=placed((2,), jnp.int32),
        branches=placed((2, 3, 128), jnp.int32),
        branch_lengths=placed((2, 3), jnp.int32),
        pair_mask=placed((2,), jnp.bool_),
        reference=None,  # so that the frozen copy's pass is in it, too
    )
    assert_compiles_with_the_kernels(compiled_step(settings, optimizer), state, frozen, batch)
