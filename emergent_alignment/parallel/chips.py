"""Data sheets of chips. Every figure says where it was read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from emergent_alignment.errors import Unreachable

GIB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """The data sheet of what JAX sees as one device.

    hbm_bytes      what a program may use: the limit that libtpu's compiler names when a program
                   is too large (libtpu 0.0.42.1; of TPU7x the page's figure); of a GPU, all of it
    peak_flops     bfloat16 FLOP/s; None where nothing was read
    hbm_bandwidth  bytes/s
    ici_bandwidth  bytes/s that a chip can send, over all its links to other chips together: the
                   page's bidirectional figure, halved, or its bits, divided by 8
    source         the page that peak and bandwidths were read from
    """

    name: str
    hbm_bytes: int
    peak_flops: float | None = None
    hbm_bandwidth: float | None = None
    ici_bandwidth: float | None = None
    source: str | None = None


# The stored v5e pages give 819 GB/s and, later, 800 GiB/s of HBM; v6e's 1640 and, later, 1600 GB/s.
# The smaller figure stands here.
_PAGES = "https://docs.cloud.google.com/tpu/docs"
TPUS = {
    "v5e": Chip("TPU v5e", int(15.75 * GIB), 197e12, 819e9, 200e9, f"{_PAGES}/v5e"),
    "v5p": Chip("TPU v5p", int(95.74 * GIB), 459e12, 2765e9, 600e9, f"{_PAGES}/v5p"),
    "v6e": Chip("TPU v6e", int(31.25 * GIB), 918e12, 1600e9, 400e9, f"{_PAGES}/v6e"),
    # A chip is two devices for JAX, each with half of everything.
    "tpu7x": Chip("half a TPU7x", 96 * GIB, 2307e12 / 2, 7380e9 / 2, 1200e9 / 4, f"{_PAGES}/tpu7x"),
}
# Dense bfloat16, SXM; NVLink's bidirectional figure, halved. NVIDIA's own pages were not at hand:
# these repeat its figures. What a B200 has of memory for programs is named as 179 to 192 GB.
_HOPPER = "https://huggingface.co/datasets/devidasmishra/ai-inference-hardware-economics-2026"
_B200 = "https://glennklockwood.com/garden/processors/B200"
GPUS = {
    "H100": Chip("H100", 80 * 10**9, 989e12, 3350e9, 450e9, _HOPPER),
    "H200": Chip("H200", 141 * 10**9, 989e12, 4800e9, 450e9, _HOPPER),
    "B200": Chip("B200", 180 * 10**9, 2250e12, 8000e9, 900e9, _B200),
}
# What JAX calls them: as libtpu 0.0.42.1 does, and by their own names.
DEVICE_KINDS = {
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
}


def check_platform(required: str) -> None:
    """Raise Unreachable where JAX computes on another platform than the one that is `required` (""
    asks for none): it takes the CPU where a driver fails, and only says so in passing."""
    if required and (platform := jax.default_backend()) != required:
        raise Unreachable(
            f"config.require_platform is {required}, and JAX found only {platform} on this host: "
            "is the driver there, the right jax extra installed, and no other process on the "
            "devices?"
        )


def memory_bytes(device: Any) -> float | None:
    """What a program may use of a device's memory; None where nobody says."""
    if device.device_kind in DEVICE_KINDS:
        return TPUS[DEVICE_KINDS[device.device_kind]].hbm_bytes
    stats = device.memory_stats() if device.platform == "gpu" else None
    return stats["bytes_limit"] if stats else None


def peak_flops(devices: Sequence[Any]) -> float | None:
    """bfloat16 FLOP/s of all `devices` together; None where a data sheet is not at hand."""
    kinds = {device.device_kind for device in devices}
    if not kinds <= DEVICE_KINDS.keys():
        return None
    return sum(TPUS[DEVICE_KINDS[device.device_kind]].peak_flops for device in devices)
