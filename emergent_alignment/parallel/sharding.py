"""The one table of logical axes → mesh axes, and shardings made from it.

Every array names its logical axes where it is declared (models/names.py, models/cache.py,
data/batches.py); nothing else decides where a dimension lies.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from emergent_alignment.errors import UserError

RULES: dict[str | None, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),  # rows of a batch, also of the key-value cache
    "embed": ("fsdp",),  # a parameter's side of the model's width
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "experts": (),  # of a layer; each is cut as an MLP is
    "layers": (),  # scanned
    "rank": (),  # of adapters
    "width": (),  # activations, norms
    None: (),
}
ROWS = RULES["batch"]
Axes = tuple[str | None, ...]


def spec(axes: Axes) -> PartitionSpec:
    """The mesh axes of logical ones."""
    return PartitionSpec(*(RULES[axis] or None for axis in axes))


def sharding(mesh: Mesh, axes: Axes) -> NamedSharding:
    """Where an array with these logical axes lies."""
    return NamedSharding(mesh, spec(axes))


def num_shards(mesh: Any, axis: str) -> int:
    """Into how many parts a logical axis is cut."""
    return math.prod(mesh.shape[name] for name in RULES[axis])


def check_divides(mesh: Mesh, name: str, axes: Axes, sizes: Mapping[str, int]) -> None:
    """Raise UserError where the mesh cuts a dimension of the array `name` unevenly. `sizes` are
    of logical axes, in what may not be cut (heads, not columns)."""
    for axis in axes:
        shards, size = num_shards(mesh, axis), sizes.get(axis)
        if size is None or size % shards == 0:
            continue
        asked = " and ".join(f"{each}={mesh.shape[each]}" for each in RULES[axis])
        fitting = [str(n) for n in range(1, mesh.size + 1) if size % n == 0 and mesh.size % n == 0]
        raise UserError(
            f"config.mesh asks for {asked}, but `{name}` has {size} {axis} on that axis; "
            f"{', '.join(fitting)} would divide them and your {mesh.size} devices"
        )


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """x, placed as its logical axes say where a mesh is in force, otherwise x as it is. Rows that
    the mesh does not divide (a single one that all share, an odd last batch) are not cut."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    uncut = [a == "batch" and n % num_shards(mesh, a) for a, n in zip(axes, x.shape)]
    axes = tuple(None if whole else axis for axis, whole in zip(axes, uncut))
    return jax.lax.with_sharding_constraint(x, spec(axes))


def over_rows(function: Any, num_replicated: int = 0) -> Any:
    """`function` of arrays whose first axis is rows (the first `num_replicated` arguments are
    whole instead), applied by each shard of rows to its own where a mesh is in force. What is
    left of the mesh, the tensor axis, stays with the compiler."""

    @functools.wraps(function)
    def mapped(*arguments):
        mesh = jax.sharding.get_abstract_mesh()
        shards = 1 if mesh.empty else num_shards(mesh, "batch")
        rows = arguments[num_replicated].shape[0]
        if shards == 1 or rows % shards:
            return function(*arguments)
        own = PartitionSpec(ROWS)
        specs = [PartitionSpec()] * num_replicated
        specs += [own] * (len(arguments) - num_replicated)
        return jax.shard_map(function, in_specs=tuple(specs), out_specs=own, axis_names=set(ROWS))(
            *arguments
        )

    return mapped
