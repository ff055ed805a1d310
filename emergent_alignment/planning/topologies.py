"""The topologies that can be planned for: TPU slices, and hosts with GPUs or a CPU, which are known
by their number of devices and their kind or memory alone."""

import importlib.metadata
import math
import os
import re
from dataclasses import dataclass, replace
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.parallel.chips import GPUS, TPUS, Chip

_FLAT = "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16".split()
_DEEP = "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8".split()
SHAPES = {"v5e": _FLAT, "v5p": _DEEP, "v6e": _FLAT, "tpu7x": _DEEP}
_DEVICES_A_CHIP = {"tpu7x": 2}
_HOSTS = re.compile(rf"(gpu|cpu):([1-9]\d*)x(?:([1-9]\d*)GB|({'|'.join(GPUS)}))")
# What JAX takes of a GPU's memory, unless the variable says another share.
_FRACTION, _DEFAULT_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION", 0.75


@dataclass(frozen=True)
class Target:
    """What is planned for: chips of one kind, and the devices to compile for.

    compiled_for_cpu says that no compiler of the real device is at hand: sizes of arguments are
    the real ones, temporaries are those of the same program compiled for as many CPU devices.
    """

    topology: str
    chip: Chip
    devices: list[Any]
    compiled_for_cpu: bool = False


def known_topologies() -> str:
    """The list that an unknown one is answered with."""
    listed = [f"{kind}:{' '.join(shapes)}" for kind, shapes in SHAPES.items()]
    hosts = f"gpu:Nx{'|'.join(GPUS)}, gpu:NxMGB or cpu:NxMGB for N devices (of M GB)"
    return "; ".join([*listed, f"{hosts}, such as gpu:8xH100"])


def num_chips(topology: str) -> int:
    """Devices, as JAX counts them. Raises UserError for an unknown topology."""
    host = _HOSTS.fullmatch(topology)
    if host and (host[1] == "gpu" or host[3]):
        return int(host[2])
    kind, _, shape = topology.partition(":")
    if shape not in SHAPES.get(kind, ()):
        raise UserError(f"--topology {topology} is unknown; known: {known_topologies()}")
    return math.prod(map(int, shape.split("x"))) * _DEVICES_A_CHIP.get(kind, 1)


def prepare(topology: str) -> None:
    """Set what must be set before JAX starts: no TPU is looked for, and there are as many CPU
    devices as a GPU host has GPUs. Raises UserError for an unknown topology, and where libtpu is
    missing or of another version than this jax's."""
    import jax

    count = num_chips(topology)
    jax.config.update("jax_platforms", "cpu")
    # A program that was compiled for absent devices can be kept, but not read again.
    jax.config.update("jax_enable_compilation_cache", False)
    if _HOSTS.fullmatch(topology):
        jax.config.update("jax_num_cpu_devices", count)
        return
    require_libtpu()
    # Without these libtpu asks a metadata server, which only machines with a TPU have, says at
    # length on stderr that there is none, and lets one process at a time be loaded.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")


def require_libtpu() -> None:
    """Raise UserError unless the libtpu is there that jax's own `tpu` extra asks for. With a newer
    one programs compile, but their text cannot be read."""
    from packaging.requirements import Requirement

    asked = [Requirement(line) for line in importlib.metadata.requires("jax") or ()]
    wanted = next(r for r in asked if r.name == "libtpu" and r.marker.evaluate({"extra": "tpu"}))
    command = f"pip install 'libtpu{wanted.specifier}'"
    try:
        installed = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"--topology needs the libtpu package: {command}") from None
    if not wanted.specifier.contains(installed):
        jax_version = importlib.metadata.version("jax")
        raise UserError(f"libtpu {installed} does not belong to jax {jax_version}: {command}")


def target_of(topology: str) -> Target:
    """The chips of a topology, after `prepare`."""
    import jax
    from jax.experimental import topologies

    count = num_chips(topology)
    host = _HOSTS.fullmatch(topology)
    if host:
        chip = _host_chip(*host.group(1, 3, 4))
        return Target(topology, chip, jax.devices("cpu")[:count], compiled_for_cpu=True)
    kind = topology.partition(":")[0]
    # libtpu knows whole boards; a single chip is one of them.
    name = topology if count > 1 else f"{kind}:2x2"
    devices = topologies.get_topology_desc(name, "tpu").devices
    return Target(topology, TPUS[kind], list(devices)[:count])


def _host_chip(kind: str, gigabytes: str | None, name: str | None) -> Chip:
    """A device of a host: of a GPU what JAX takes of its memory, of a CPU all."""
    chip = GPUS[name] if name else Chip(f"{kind.upper()} with {gigabytes} GB", 0)
    size = chip.hbm_bytes or int(gigabytes) * 10**9
    share = float(os.environ.get(_FRACTION, _DEFAULT_FRACTION)) if kind == "gpu" else 1.0
    return replace(chip, hbm_bytes=int(size * share))
