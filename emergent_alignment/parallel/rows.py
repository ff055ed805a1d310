"""Rows between a host and its devices: each host feeds its own rows, and reads its own; or it has
all of them (hosts.rows_of_all_hosts), and feeds its part of them."""

from typing import Any

import jax
import numpy as np

from emergent_alignment.parallel.hosts import has_all_rows, whole
from emergent_alignment.parallel.mesh import current_mesh
from emergent_alignment.parallel.sharding import num_shards, sharding


def to_devices(tree: Any) -> Any:
    """Arrays [rows, …] that hold this host's rows (or all), as arrays of all hosts' rows, cut over
    the mesh in force; without a mesh they are left as they are."""
    mesh = current_mesh()
    if mesh is None:
        return tree
    return jax.tree.map(lambda leaf: _placed(mesh, leaf), tree)


def _placed(mesh: jax.sharding.Mesh, leaf: Any) -> jax.Array:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_placed(mesh, jax.random.key_data(leaf)))
    leaf = np.asarray(leaf)
    if has_all_rows():
        leaf = leaf[own_rows(len(leaf))]
    return jax.make_array_from_process_local_data(sharding(mesh, ("batch",)), leaf)


def to_host(tree: Any) -> Any:
    """numpy arrays with this host's rows, or all, of arrays [rows, …]."""
    return jax.tree.map(whole if has_all_rows() else _own_rows, tree)


def rows_held(tree: Any) -> Any:
    """numpy arrays with the rows that this host holds, its own or all, of arrays [rows, …] that are
    whole on every device."""
    return jax.tree.map(lambda leaf: whole(leaf)[held_rows(len(leaf))], tree)


def _own_rows(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    parts = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])


def own_rows(num_rows: int) -> np.ndarray:
    """Which of `num_rows` rows of a batch this host holds, in order: all of them on one host."""
    mesh = current_mesh()
    if mesh is None or jax.process_count() == 1:
        return np.arange(num_rows)
    places = sharding(mesh, ("batch",)).addressable_devices_indices_map((num_rows,))
    starts = sorted({(index[0].start or 0, index[0].stop or num_rows) for index in places.values()})
    return np.concatenate([np.arange(start, stop) for start, stop in starts])


def held_rows(num_rows: int) -> np.ndarray:
    """Which of `num_rows` rows of a batch this host holds now: its own, or all."""
    return np.arange(num_rows) if has_all_rows() else own_rows(num_rows)


def row_multiple() -> int:
    """This host's numbers of rows must be multiples of this."""
    mesh = current_mesh()
    return 1 if mesh is None else len(held_rows(num_shards(mesh, "batch")))
