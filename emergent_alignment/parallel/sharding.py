"""The tables of logical axes → mesh axes, one for training and reading and one for decoding, and
shardings made from them.

Every array names its logical axes where it is declared (models/names.py, models/cache.py,
data/batches.py); nothing else decides where a dimension lies.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from emergent_alignment.errors import UserError

Rules = dict[str | None, tuple[str, ...]]
RULES: Rules = {
    "batch": ("data", "fsdp", "decode", "expert"),  # rows of a batch, also of the key-value cache
    "embed": ("fsdp", "decode", "expert"),  # a parameter's side of the model's width
    "expert_embed": ("fsdp", "decode"),  # that of an expert's
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "experts": ("expert",),  # of a layer; each is cut as an MLP is
    "layers": (),  # scanned
    "rank": (),  # of adapters
    "width": (),  # activations, norms
    None: (),
}
# A token at a time, parameters that are cut by `fsdp` would be gathered anew for every token. They
# are gathered once, and what `decode` cuts of rows in training, it cuts of heads and columns here.
DECODING: Rules = (
    RULES
    | {"batch": ("data", "fsdp", "expert"), "embed": (), "expert_embed": ()}
    | dict.fromkeys(("heads", "kv_heads", "mlp", "vocab"), ("decode", "tensor"))
)
Axes = tuple[str | None, ...]
_rules: contextvars.ContextVar[Rules] = contextvars.ContextVar("rules", default=RULES)


@contextlib.contextmanager
def laid_out(rules: Rules) -> Iterator[None]:
    """What is traced inside lies as this table says. It stands within a function that is compiled,
    so that what is compiled outside of it is never taken for this."""
    token = _rules.set(rules)
    try:
        yield
    finally:
        _rules.reset(token)


def spec(axes: Axes) -> PartitionSpec:
    """The mesh axes of logical ones."""
    return PartitionSpec(*(_rules.get()[axis] or None for axis in axes))


def sharding(mesh: Mesh, axes: Axes) -> NamedSharding:
    """Where an array with these logical axes lies."""
    return NamedSharding(mesh, spec(axes))


def num_shards(mesh: Any, axis: str) -> int:
    """Into how many parts a logical axis is cut: one where there is no mesh (None)."""
    if mesh is None:
        return 1
    return math.prod(mesh.shape[name] for name in _rules.get()[axis])


def check_divides(mesh: Mesh, name: str, axes: Axes, sizes: Mapping[str, int]) -> None:
    """Raise UserError where the mesh cuts a dimension of the array `name` unevenly. `sizes` are
    of logical axes, in what may not be cut (heads, not columns)."""
    for axis in axes:
        shards, size = num_shards(mesh, axis), sizes.get(axis)
        if size is None or size % shards == 0:
            continue
        cut_by = [name for name in _rules.get()[axis] if mesh.shape[name] > 1]
        asked = " and ".join(f"{name}={mesh.shape[name]}" for name in cut_by)
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


def placed_rows(x: jax.Array) -> jax.Array:
    """x [rows, …], cut by rows alone."""
    return constrain(x, "batch", *[None] * (x.ndim - 1))


def replicated(x: jax.Array) -> jax.Array:
    """x [rows, …] of cut rows, put together on every device where a mesh is in force: every host
    can read all of it."""
    return constrain(placed_rows(x), *[None] * x.ndim)


def over_rows(function: Any, *before: str | None) -> Any:
    """`function` of arrays whose first axis is rows, applied by each shard of rows to its own where
    a mesh is in force. The first arguments have the logical axes `before` as their first instead
    (None: they are whole). What is left of the mesh, the tensor axis, stays with the compiler."""

    @functools.wraps(function)
    def mapped(*arguments):
        mesh = jax.sharding.get_abstract_mesh()
        shards = 1 if mesh.empty else num_shards(mesh, "batch")
        rows = arguments[len(before)].shape[0]
        if shards == 1 or rows % shards:
            return function(*arguments)
        given = *before, *["batch"] * (len(arguments) - len(before))
        specs = tuple(spec((axis,)) for axis in given)
        options = {"out_specs": spec(("batch",)), "axis_names": set(_rules.get()["batch"])}
        return jax.shard_map(function, in_specs=specs, **options)(*arguments)

    return mapped


# What shards of rows say to each other, within `over_rows`.


def shard_index(axis: str) -> jax.Array:
    """Which part of a logical axis this shard of rows holds."""
    return jax.lax.axis_index(_rules.get()[axis])


def of_all_shards(x: jax.Array, axis: str) -> jax.Array:
    """x [n, …] of all that hold a part of a logical axis, [n · parts, …]."""
    return jax.lax.all_gather(x, _rules.get()[axis], tiled=True)


def sum_to_shards(x: jax.Array, axis: str) -> jax.Array:
    """The sum of x [n · parts, …] over all that hold a part of a logical axis, to each what it
    brought to `of_all_shards`, [n, …]."""
    return jax.lax.psum_scatter(x, _rules.get()[axis], tiled=True)
