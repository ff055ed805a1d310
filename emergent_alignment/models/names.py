"""The tables of models/families as the rest of the package asks for them: shapes, logical axes and
the names in files of the leaves of a parameter tree.

A tree path is a tuple of keys. Arrays under "layers" are stacked on a leading axis, one row a
layer; kernels are stored [in, out], transposed from the files.
"""

from __future__ import annotations

from emergent_alignment.models.architecture import Architecture
from emergent_alignment.models.families import FAMILIES, family_of
from emergent_alignment.models.family import Parameter, TreePath
from emergent_alignment.models.held_kernels import SCALES

_ALL = {row.path: row for family in FAMILIES.values() for row in family.parameters}
_ADAPTED = {row.path[-2]: row for row in _ALL.values() if row.adapted}

PROJECTION_NAMES = {  # our name: (Hugging Face module, GGUF name)
    name: (row.module, row.gguf.split(".")[-2]) for name, row in _ADAPTED.items()
}
EXPERT_PROJECTIONS = tuple(name for name, row in _ADAPTED.items() if row.of_experts)
QUANTISABLE = tuple(row.path[-2] for row in _ALL.values() if row.quantisable)


def tensor_names(config: Architecture) -> dict[TreePath, Parameter]:
    """The rows of the family's table that this architecture has, by path, in the order of the
    forward pass."""
    return {row.path: row for row in family_of(config).parameters if row.is_in(config)}


def parameter_shapes(config: Architecture) -> dict[TreePath, tuple[int, ...]]:
    """The shape of every leaf of the parameter tree, by path, in the order of the forward pass."""
    return {path: row.shape(config) for path, row in tensor_names(config).items()}


def projection_sizes(config: Architecture) -> dict[str, tuple[int, int]]:
    """The (in, out) sizes of each projection of a layer, of an expert's where it has experts."""
    rows = tensor_names(config).values()
    return {row.path[-2]: row.shape(config)[-2:] for row in rows if row.adapted}


def active_sizes(config: Architecture) -> dict[str, tuple[int, int, int]]:
    """The (times, in, out) of each kernel that a token meets in a layer: a projection once, an
    expert's as often as experts are chosen."""
    rows = tensor_names(config).values()
    return {
        row.path[-2]: (
            config.experts_per_token if row.of_experts else 1,
            *row.shape(config)[-2:],
        )
        for row in rows
        if row.path[-1] == "kernel"
    }


def parameter_axes(path: TreePath) -> tuple[str, ...]:
    """The logical axes of a leaf of the parameter tree, of a tree of adapters, or of what a policy
    is steered by (training/state.py)."""
    *_, name = path
    if name in ("steering", "residual"):  # what a policy is steered by, and where it is added
        return "layers", "width"
    if name in ("a", "b", *SCALES.values()):
        *before, inputs, outputs = _ADAPTED[path[-2]].axes
        of_leaf = {"a": (inputs, "rank"), "b": ("rank", outputs), SCALES["int8"]: (outputs,)}
        return *before, *of_leaf.get(name, (inputs, outputs))
    return _AXES[path[-2:] if path[-2:] in _AXES else path[-1:]]


_AXES = {row.path[-2:] if len(row.path) > 2 else row.path[-1:]: row.axes for row in _ALL.values()}


def file_shape(row: Parameter, leaf_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of each of the tensors in a file that make up a leaf of this shape."""
    *shape, last = leaf_shape[row.leading :]
    shape = (*shape, last * row.turns)
    return shape[::-1] if row.transposed else shape
