"""Attention kernels under a mesh: each device computes its own rows and heads."""

import jax
import jax.numpy as jnp
import numpy as np

from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.attention_tpu import splash_prefix_plan
from emergent_alignment.models.prefix_attention import prefix_plan
from emergent_alignment.parallel.mesh import in_force, make_mesh


def test_splash_attention_on_a_mesh_equals_the_blocks_on_one_device():
    layout, draw = PrefixLayout(64, 2, 32), np.random.default_rng(0)
    lengths = jnp.array([64, 50, 3, 20])
    shapes = [(4, 128, heads, 16) for heads in (4, 2, 2)]
    shapes.append((4,))
    given = tuple(jnp.float32(draw.standard_normal(shape)) for shape in shapes)
    real = np.arange(128)[None] >= 64
    real |= np.arange(128)[None] < lengths[:, None]

    def total(plan_of, query, key, value, sinks):
        output, _ = plan_of(layout, lengths)(0, query, key, value, None, sinks=sinks)
        return jnp.square(jnp.where(real[:, :, None, None], output, 0.0)).sum()

    def blocks(layout, lengths):
        return prefix_plan(layout, lengths, "blocks")

    def splash(layout, lengths):
        return splash_prefix_plan(layout, lengths, interpret=True)

    gradients = jax.jit(jax.value_and_grad(total, (1, 2, 3, 4)), static_argnums=0)
    wanted = gradients(blocks, *given)
    with in_force(make_mesh({"data": 2, "fsdp": 2, "tensor": 2})):
        found = gradients(splash, *given)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)
