"""Where parameters, and what has their shape (gradients, moments), lie on a mesh."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.tree_util import DictKey

from emergent_alignment.models import names
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.family import TreePath
from emergent_alignment.models.held_kernels import SCALES, scale_shape
from emergent_alignment.parallel.mesh import (
    DecodeMeshSection,
    MeshSection,
    decode_tensors,
    mesh_sizes,
)
from emergent_alignment.parallel.sharding import (
    DECODING,
    RULES,
    check_divides,
    constrain,
    laid_out,
    sharding,
)

# Parts that the decoder computes with in another dtype than that of the activations.
_OWN_DTYPE = {*SCALES.values(), "residual", "router", "sinks"}


def check_mesh(mesh: Mesh | None, config: ModelConfig, frozen_dtype: str = "") -> None:
    """Raise UserError where the mesh cuts one of the model's dimensions unevenly, in training or
    while it decodes; or the tiles of inputs that share a scale, where kernels are so held."""
    if mesh is None:
        return
    sizes = {
        "embed": config.hidden_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "mlp": _mlp_size(config),
        "vocab": config.vocab_size,
        "experts": config.num_experts,
        "expert_embed": config.hidden_size,
    }
    arrays = [(path, sizes) for path in names.parameter_shapes(config)]
    arrays += _tiled_scales(config, frozen_dtype)
    for rules in (RULES, DECODING):
        with laid_out(rules):
            for path, of_axes in arrays:
                check_divides(mesh, ".".join(path), names.parameter_axes(path), of_axes)


def _tiled_scales(config: ModelConfig, frozen_dtype: str) -> Iterator[tuple[TreePath, dict]]:
    """Each leaf of scales of tiles, and how many tiles there are along its axis of inputs."""
    if frozen_dtype not in ("int4", "nf4"):
        return
    for row in names.tensor_names(config).values():
        if row.quantisable:
            path = (*row.path[:-1], SCALES[frozen_dtype])
            tiles = scale_shape(frozen_dtype, row.shape(config))[-2]
            yield path, {names.parameter_axes(path)[-2]: tiles}


def decode_mesh(
    section: MeshSection, config: ModelConfig, dtype: jnp.dtype, devices: int, memory: float | None
) -> DecodeMeshSection:
    """The mesh to decode on: what the section says of it or, where that is nothing, the smallest
    tensor axis with which a device holds the gathered parameters, as `dtype`, in a quarter of its
    `memory` (bytes; None: not known, and then they are cut no more than in training)."""
    decode = section.decode
    if decode.tensor or memory is None:
        return decode
    sizes = mesh_sizes(section.sizes(), devices)
    possible = [tensor for tensor in decode_tensors(sizes) if cuts_evenly(config, tensor)]
    held = gathered_bytes(config, dtype, sizes["expert"])
    small = (tensor for tensor in possible if held / tensor <= memory / 4)
    return replace(decode, tensor=next(small, max(possible, default=0)))


def gathered_bytes(config: ModelConfig, dtype: jnp.dtype, expert: int = 1) -> float:
    """Of all parameters, as decoding holds them, where experts are cut into so many parts."""
    rows = names.tensor_names(config).values()
    numbers = sum(math.prod(row.shape(config)) / (expert if row.of_experts else 1) for row in rows)
    return numbers * jnp.dtype(dtype).itemsize


def cuts_evenly(config: ModelConfig, tensor: int) -> bool:
    """Whether a tensor axis of this size divides all that it cuts."""
    heads = config.num_heads, config.num_kv_heads
    return not any(size % tensor for size in (*heads, _mlp_size(config), config.vocab_size))


def _mlp_size(config: ModelConfig) -> int:
    return config.expert_size if config.num_experts else config.intermediate_size


def laid_out_for_decoding(params: dict, dtype: jnp.dtype) -> dict:
    """Parameters, of the policy or frozen ones, as decoding reads them where the table of decoding
    counts: gathered once, in the dtype that they are computed with. Without a mesh they are left as
    they are."""
    if jax.sharding.get_abstract_mesh().empty:
        return params

    def of_leaf(path, leaf):
        keys = _keys(path)
        axes = names.parameter_axes(keys)
        is_plain = not keys[-1].endswith("norm") and not _OWN_DTYPE.intersection(keys)
        if is_plain and jnp.issubdtype(leaf.dtype, jnp.floating):
            leaf = leaf.astype(dtype)  # on each device's own part: fewer bytes are gathered
        return constrain(leaf, *axes)

    # Without the barrier the compiler may gather them within the loop over tokens after all.
    return jax.lax.optimization_barrier(jax.tree_util.tree_map_with_path(of_leaf, params))


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
