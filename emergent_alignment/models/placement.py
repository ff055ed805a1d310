"""Where parameters, and what has their shape (gradients, moments), lie on a mesh."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.tree_util import DictKey

from emergent_alignment.models import names
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.family import TreePath
from emergent_alignment.parallel.sharding import check_divides, sharding


def check_mesh(mesh: Mesh | None, config: ModelConfig) -> None:
    """Raise UserError where the mesh cuts one of the model's dimensions unevenly."""
    if mesh is None:
        return
    sizes = {
        "embed": config.hidden_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "mlp": config.expert_size if config.num_experts else config.intermediate_size,
        "vocab": config.vocab_size,
    }
    for path in names.parameter_shapes(config):
        check_divides(mesh, ".".join(path), names.parameter_axes(path), sizes)


def leaf_sharding(mesh: Mesh, path: TreePath) -> NamedSharding:
    """Where a leaf of the parameter tree, or of a tree of adapters, lies."""
    return sharding(mesh, names.parameter_axes(path))


def read_shards(
    mesh: Mesh,
    path: TreePath,
    shape: tuple[int, ...],
    read: Callable[[tuple[slice, ...]], np.ndarray],
) -> jax.Array:
    """A leaf on the mesh, of which this host reads its devices' parts, each once."""
    parts: dict[tuple, np.ndarray] = {}

    def part(index: tuple[slice, ...]) -> np.ndarray:
        key = tuple((cut.start, cut.stop) for cut in index)
        if key not in parts:
            parts[key] = read(index)
        return parts[key]

    return jax.make_array_from_callback(shape, leaf_sharding(mesh, path), part)


def shardings_of(mesh: Mesh | None, tree: Any, like: Any = None) -> Any:
    """The sharding of each leaf of `tree`: parameters, adapters, or an optimizer's state over
    them. `like` is the parameters or adapters themselves; a leaf of the state that lacks one of
    their dimensions (a factored moment) lies as the dimensions it has. None without a mesh."""
    if mesh is None:
        return None
    whole = {_keys(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(like or tree)}

    def of_leaf(path, leaf):
        keys = _keys(path)
        if not keys or keys not in whole:  # a count, or a head: small, and whole on each device
            return sharding(mesh, ())
        axes = names.parameter_axes(keys)
        return sharding(mesh, _remaining(axes, whole[keys].shape, leaf.shape))

    return jax.tree_util.tree_map_with_path(of_leaf, tree)


def _keys(path: tuple) -> TreePath:
    return tuple(key.key for key in path if isinstance(key, DictKey))


def _remaining(axes: tuple, shape: tuple[int, ...], full: tuple[int, ...]) -> tuple:
    if full == shape:
        return axes
    for left_out in range(len(shape)):
        if full == shape[:left_out] + shape[left_out + 1 :]:
            return axes[:left_out] + axes[left_out + 1 :]
    return ()
