"""The links that a slice really has: which of them a group of devices can use together, and how
many hops it is across.

A TPU's data sheet adds up all of a chip's links. Devices along one axis of a torus use the two of
that axis, and where the axis does not close to a ring the end has only one of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# An axis closes to a ring where a slice of flat chips is a whole pod wide, and where one of deep
# chips is made of whole cubes of 4 × 4 × 4 (docs.cloud.google.com/tpu/docs, system architecture).
_FLAT_RING, _CUBE = 16, 4
# About 1 µs a hop (jax-ml.github.io/scaling-book/sharding); what starts a collective comes on top.
HOP_SECONDS = 1e-6


@dataclass(frozen=True)
class Links:
    """Where devices are, in the order that a program numbers them, and which axes are rings.

    places  coordinates of each device
    sizes   devices along each axis; an axis of size 1 has no links
    rings   whether it closes
    """

    places: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    rings: tuple[bool, ...]

    def share(self, group: Sequence[int]) -> float:
        """The share of a chip's links that these devices use when each sends to all."""
        used = sum(2 if self._closes(axis, group) else 1 for axis in self._spanned(group))
        return used / (2 * len(self.sizes)) if used else 1.0

    def hops(self, group: Sequence[int]) -> int:
        """From one device to the farthest of the group."""
        return sum(
            self._spread(axis, group) // 2
            if self._closes(axis, group)
            else self._spread(axis, group) - 1
            for axis in self._spanned(group)
        )

    def _spread(self, axis: int, group: Sequence[int]) -> int:
        along = [self.places[device][axis] for device in group]
        return max(along) - min(along) + 1

    def _spanned(self, group: Sequence[int]) -> list[int]:
        return [axis for axis in range(len(self.sizes)) if self._spread(axis, group) > 1]

    def _closes(self, axis: int, group: Sequence[int]) -> bool:
        return self.rings[axis] and self._spread(axis, group) == self.sizes[axis]


def slice_links(devices: Iterable[Any]) -> Links | None:
    """Of TPU devices, which know their coordinates; None for others."""
    devices = list(devices)
    places = [getattr(device, "coords", None) for device in devices]
    if not places or None in places:
        return None
    sizes = [max(along) + 1 for along in zip(*places)]
    if "lite" in devices[0].device_kind:
        places, sizes = [place[:2] for place in places], sizes[:2]
        rings = [size == _FLAT_RING for size in sizes]
    else:
        whole_cubes = not any(size % _CUBE for size in sizes)
        rings = [whole_cubes] * len(sizes)
    return Links(tuple(map(tuple, places)), tuple(sizes), tuple(rings))
