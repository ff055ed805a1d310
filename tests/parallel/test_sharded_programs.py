"""What XLA makes of the table of axes, read from compiled programs for eight devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilation import USERS_FUSIONS
from random_batches import random_batch

from emergent_alignment.generation.prefill import prefill
from emergent_alignment.generation.sampler import Sampler, decode, sampler_settings
from emergent_alignment.models.placement import shardings_of
from emergent_alignment.parallel.mesh import in_force, make_mesh
from emergent_alignment.parallel.rows import to_devices
from emergent_alignment.planning.hlo_text import Array, HloInstruction, HloModule, parse
from emergent_alignment.randomness import row_keys
from emergent_alignment.training.state import initial_state
from emergent_alignment.training.step import compiled_step, step_shardings
from emergent_alignment.training.step_settings import StepSettings

# They make no array of their own.
HANDED_ON = ("parameter", "get-tuple-element", "tuple", "while", "bitcast", "call", "conditional")


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config("llama", num_layers=3, num_heads=8, num_kv_heads=8)


def in_and_out_of_loops(text: str) -> tuple[list[HloInstruction], list[HloInstruction], HloModule]:
    """(outside, inside, program): instructions by whether a loop's body leads to them."""
    program = parse(text)
    loops = [
        one.attribute(r"body=%?([\w.\-]+)")
        for computation in program.computations.values()
        for one in computation.instructions.values()
        if one.opcode == "while"
    ]
    inside: set[str] = set()
    while loops:
        name = loops.pop()
        inside.add(name)
        for one in program.computations[name].instructions.values():
            loops += [called for called in one.called if called not in inside]
    parts = [], []
    for name, computation in program.computations.items():
        parts[name in inside].extend(computation.instructions.values())
    return *parts, program


def gathered(instructions: list[HloInstruction]) -> list[Array]:
    return [
        array
        for one in instructions
        if one.opcode.startswith("all-gather") and one.opcode != "all-gather-done"
        for array in one.arrays
    ]


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
        lowered = step.lower(state, frozen, to_devices(batch))
    text = lowered.compile(compiler_options=USERS_FUSIONS).as_text()
    outside, inside, _ = in_and_out_of_loops(text)
    width, inner = config.hidden_size, config.intermediate_size
    assert any(sorted(array.shape[-2:]) == [width, inner] for array in gathered(inside))
    smallest = min(leaf.size for leaf in jax.tree.leaves(params["layers"]) if leaf.ndim == 3)
    kept = [str(array) for array in gathered(outside) if array.size >= smallest]
    assert not kept, "outside the scan nothing as large as a stack of kernels is gathered"


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
        sampler = Sampler(settings, keys)
        lowered = decode.lower(config, params, prompts, sampler, live, width=slots)
    text = lowered.compile(compiler_options=USERS_FUSIONS).as_text()
    heads, dim = config.num_kv_heads // 2, config.head_dim
    own = Array("f32", (config.num_layers, 8 // 4, 1, slots, heads, dim))
    _, inside, program = in_and_out_of_loops(text)
    makers = [one for one in inside if own in one.arrays and one.opcode not in HANDED_ON]
    assert makers, "a device holds its rows and its heads of the cache"
    for one in makers:
        updated = one
        if one.opcode == "fusion":
            fused = program.computations[one.called[0]]
            updated = fused.instructions[fused.root]
        assert updated.opcode == "dynamic-update-slice", f"{one.name} writes the cache anew"
    moved = [
        one.name
        for one in inside
        if re.match(r"(all-gather|all-to-all|collective-permute)", one.opcode)
        and any(slots in array.shape for array in one.arrays)
    ]
    assert not moved, "the cache stays where it is"
