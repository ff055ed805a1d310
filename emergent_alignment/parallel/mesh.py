"""The device mesh: axes data, fsdp, expert and tensor, and which mesh is in force.

A mesh of one device is no mesh: nothing is then placed or constrained. Of the fsdp axis the devices
have two parts, the second of which, `decode`, cuts heads and columns while answers are decoded.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from emergent_alignment.errors import UserError
from emergent_alignment.settings import Section, setting

AXES = ("data", "fsdp", "expert", "tensor")
DEVICE_AXES = ("data", "fsdp", "decode", "expert", "tensor")


@dataclass(frozen=True)
class DecodeMeshSection(Section):
    """The same devices while answers are decoded, a token at a time. Parameters that `mesh.fsdp`
    cuts are gathered once for that: to whole heads and columns, or to parts of them."""

    data: int = setting(
        -1, "Copies of the model, each with its own rows; -1: as many as there are.", at_least=-1
    )
    tensor: int = setting(
        0,
        "Parts of heads and columns: mesh.tensor times a part of mesh.fsdp; 0: as few as let a "
        "device hold the parameters in a quarter of its memory.",
        at_least=0,
    )


@dataclass(frozen=True)
class MeshSection(Section):
    """How devices are arranged; one size may be -1: all that are left."""

    data: int = setting(-1, "Copies of the model, each with its own rows.", at_least=-1)
    fsdp: int = setting(
        1, "Parts of every parameter, gathered layer by layer; rows are cut, too.", at_least=-1
    )
    expert: int = setting(
        1,
        "Parts of every layer's experts, to which tokens are sent; all else is cut as by fsdp.",
        at_least=-1,
    )
    tensor: int = setting(1, "Parts of every layer's heads and columns.", at_least=-1)
    decode: DecodeMeshSection = DecodeMeshSection()

    def sizes(self) -> dict[str, int]:
        """The wanted size of each axis."""
        return {axis: getattr(self, axis) for axis in AXES}


def mesh_sizes(wanted: Mapping[str, int], num_devices: int) -> dict[str, int]:
    """Sizes of all axes; one of `wanted` may be -1 and takes the devices that are left. Raises
    UserError where the sizes do not multiply to the number of devices."""
    sizes = {axis: int(wanted.get(axis, 1)) for axis in AXES}
    text = sizes_text(sizes)
    filled = [axis for axis, size in sizes.items() if size == -1]
    wrong = [axis for axis, size in sizes.items() if size < 1 and size != -1]
    if wrong or len(filled) > 1 or set(wanted) - set(AXES):
        raise UserError(
            f"config.mesh ({text}): axes are {', '.join(AXES)}, sizes are 1 or more, and one of "
            "them may be -1, which takes the devices that are left"
        )
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if filled and num_devices % fixed == 0:
        return sizes | {filled[0]: num_devices // fixed}
    if not filled and fixed == num_devices:
        return sizes
    near = nearest_sizes(sizes, num_devices)
    raise UserError(
        f"config.mesh ({text}) does not fill {num_devices} "
        f"device{'s' if num_devices > 1 else ''}; "
        f"{sizes_text(near)} would"
    )


def sizes_text(sizes: Mapping[str, int], between: str = "=") -> str:
    """The axes by name; that of experts where it is not 1."""
    return ", ".join(f"{axis}{between}{size}" for axis, size in told_sizes(sizes).items())


def shape_text(sizes: Mapping[str, int]) -> str:
    """data × fsdp × tensor; the axis of experts by its name, where it is not 1."""
    told = told_sizes(sizes)
    return " × ".join(f"{'expert ' * (axis == 'expert')}{size}" for axis, size in told.items())


def row_axes(mesh: Mesh | None) -> str:
    """The axes that cut the rows of a batch, by name."""
    return " × ".join(axis for axis in told_sizes(sizes_of(mesh)) if axis != "tensor")


def told_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """Without the axis of experts where it is 1, as most models have it."""
    return {axis: size for axis, size in sizes.items() if axis != "expert" or size != 1}


def fitting_sizes(wanted: Mapping[str, int], num_devices: int) -> dict[str, int]:
    """`mesh_sizes` where `wanted` fits the devices, else the nearest that does: for reading what
    was trained on other devices."""
    try:
        return mesh_sizes(wanted, num_devices)
    except UserError:
        return nearest_sizes(wanted, num_devices)


def nearest_sizes(sizes: Mapping[str, int], num_devices: int) -> dict[str, int]:
    """The mesh of `num_devices` whose sizes differ least from those asked for, by ratio; experts
    are cut only where that was asked for."""

    def distance(other: dict[str, int]) -> float:
        return sum(abs(math.log(other[axis] / sizes[axis])) for axis in AXES if sizes[axis] > 0)

    divisors = [d for d in range(1, num_devices + 1) if num_devices % d == 0]
    parts = itertools.product(divisors if sizes["expert"] != 1 else (1,), divisors, divisors)
    meshes = [
        dict(zip(AXES, (num_devices // (fsdp * expert * tensor), fsdp, expert, tensor)))
        for expert, tensor, fsdp in parts
        if num_devices % (fsdp * expert * tensor) == 0
    ]
    return min(meshes, key=distance)


def make_mesh(
    wanted: Mapping[str, int],
    devices: Sequence[jax.Device] | None = None,
    decode: DecodeMeshSection = DecodeMeshSection(),
) -> Mesh | None:
    """A mesh with the axes DEVICE_AXES over all devices (or those given), neighbours on the
    interconnect side by side; None for a single device. TPU slices that only the data centre's
    network joins hold whole copies of the model each. Raises UserError as mesh_sizes, where
    `decode` is no part of the mesh, and where `data` does not divide into the slices."""
    devices = jax.devices() if devices is None else list(devices)
    sizes = mesh_sizes(wanted, len(devices))
    parts = _decode_parts(sizes, decode)
    if len(devices) == 1:
        return None
    sizes |= {"fsdp": sizes["fsdp"] // parts, "decode": parts}
    return Mesh(_grid(sizes, devices), DEVICE_AXES, axis_types=(AxisType.Auto,) * len(DEVICE_AXES))


def sizes_of(mesh: Mesh | None) -> dict[str, int]:
    """The size of each axis as it was asked for; 1 everywhere without a mesh."""
    if mesh is None:
        return dict.fromkeys(AXES, 1)
    return {
        "data": mesh.shape["data"],
        "fsdp": mesh.shape["fsdp"] * mesh.shape["decode"],
        "expert": mesh.shape["expert"],
        "tensor": mesh.shape["tensor"],
    }


def decode_tensors(sizes: Mapping[str, int]) -> list[int]:
    """The tensor axes that a mesh can have while it decodes, the smallest first."""
    fsdp, tensor = sizes["fsdp"], sizes["tensor"]
    return [tensor * parts for parts in range(1, fsdp + 1) if fsdp % parts == 0]


def _decode_parts(sizes: dict[str, int], decode: DecodeMeshSection) -> int:
    """What of fsdp cuts heads and columns while answers are decoded."""
    tensor, possible = sizes["tensor"], decode_tensors(sizes)
    wanted = decode.tensor or tensor
    copies = math.prod(sizes.values()) // wanted
    if wanted not in possible or decode.data not in (-1, copies):
        meshes = "; ".join(
            f"data={math.prod(sizes.values()) // each}, tensor={each}" for each in possible
        )
        raise UserError(
            f"config.mesh.decode (data={decode.data}, tensor={decode.tensor}) is none of those "
            f"that config.mesh can be laid out as: {meshes}"
        )
    return wanted // tensor


def _grid(sizes: dict[str, int], devices: list[jax.Device]) -> np.ndarray:
    shape = tuple(sizes[axis] for axis in DEVICE_AXES)
    # A slice of 4 × 4 chips holds a mesh of 2 × 4 × 2 only if one of its sides may be split.
    arranged = functools.partial(mesh_utils.create_device_mesh, allow_split_physical_axes=True)
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        # GPUs have one, too, for each host; a slice that is alone may have none.
        index = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
        slices.setdefault(index, []).append(device)
    if sizes["data"] % len(slices):
        raise UserError(
            f"config.mesh.data={sizes['data']}: there are {len(slices)} slices, each of which "
            f"holds whole copies of the model; data must be a multiple of {len(slices)}"
        )
    within = (shape[0] // len(slices), *shape[1:])
    return np.concatenate([arranged(within, slices[index]) for index in sorted(slices)])


def in_force(mesh: Mesh | None) -> contextlib.AbstractContextManager:
    """`with in_force(mesh):` rows that are placed there, and activations of what is compiled
    there, are sharded over the mesh (jax.set_mesh); None changes nothing."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def current_mesh() -> Mesh | None:
    """The mesh in force, outside of compiled functions."""
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else mesh
