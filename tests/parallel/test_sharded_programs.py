"""What XLA makes of the table of axes, read from compiled programs for eight devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_batches import random_batch

from emergent_alignment.generation.reading import prefill
from emergent_alignment.generation.sampler import decode, sampler_settings
from emergent_alignment.generation.text import row_keys
from emergent_alignment.models.placement import shardings_of
from emergent_alignment.parallel.mesh import in_force, make_mesh
from emergent_alignment.parallel.rows import to_devices
from emergent_alignment.training.state import initial_state
from emergent_alignment.training.step import StepSettings, compiled_step, step_shardings


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config("llama", num_layers=3, num_heads=8, num_kv_heads=8)


def computations(text: str) -> tuple[str, str]:
    """A program's text outside of its loops' bodies, and inside."""
    bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
    outside, inside = [], []
    for part in re.split(r"\n(?=%|ENTRY)", text):
        name = part.split(" ", 1)[0].lstrip("%")
        (inside if name in bodies else outside).append(part)
    return "\n".join(outside), "\n".join(inside)


def gathered_shapes(text: str) -> list[tuple[int, ...]]:
    found = re.findall(r"= \(?f32\[([\d,]+)\]\S* all-gather(?:-start)?\(", text)
    return [tuple(map(int, shape.split(","))) for shape in found]


def test_parameters_are_gathered_layer_by_layer(config, tiny_params):
    """Inside the scan one layer's kernels are gathered, outside it never those of all layers."""
    mesh = make_mesh({"data": 1, "fsdp": 8, "tensor": 1})
    params, optimizer = tiny_params(config), optax.sgd(0.1)
    frozen = jax.device_put(params, shardings_of(mesh, params))
    batch = jax.tree.map(np.asarray, random_batch(rows=16))
    settings = StepSettings(config, None, chunk_size=16, remat="full")
    with in_force(mesh):
        state = initial_state(frozen, None, optimizer, 0, mesh)
        step = compiled_step(settings, optimizer, step_shardings(mesh, state, frozen))
        text = step.lower(state, frozen, to_devices(batch)).compile().as_text()
    outside, inside = computations(text)
    width, inner = config.hidden_size, config.intermediate_size
    assert any(sorted(shape[-2:]) == [width, inner] for shape in gathered_shapes(inside))
    whole = {tuple(leaf.shape) for leaf in jax.tree.leaves(params["layers"]) if leaf.ndim == 3}
    assert not whole & set(gathered_shapes(outside))


def test_the_cache_is_cut_and_never_copied_while_decoding(config, tiny_params):
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    params, slots = tiny_params(config), 64
    params = jax.device_put(params, shardings_of(mesh, params))
    keys = row_keys(jax.random.key(0), np.arange(8))[:, None]
    settings = sampler_settings((2,), slots, temperature=1.0)
    with in_force(mesh):
        tokens = to_devices((np.ones((8, 16), np.int32), np.full(8, 16, np.int32)))
        prompts = prefill(config, params, *tokens)
        live = to_devices(jnp.ones(8, bool))
        lowered = decode.lower(config, params, prompts, keys, live, settings, width=slots)
        text = lowered.compile().as_text()
    heads, dim = config.num_kv_heads // 2, config.head_dim
    own = f"f32[{config.num_layers},{8 // 4},1,{slots},{heads},{dim}]"
    _, inside = computations(text)
    assert own in inside, "a device holds its rows and its heads of the cache"
    assert not [
        line for line in inside.splitlines() if re.search(re.escape(own) + r"\S* copy\(", line)
    ]
    moved = [
        line
        for line in inside.splitlines()
        if re.search(r"(all-gather|all-to-all|collective-permute)", line) and f",{slots}," in line
    ]
    assert not moved, "the cache stays where it is"
