"""The least time a program can take on a chip, by its three limits (Williams et al. 2009)."""

from dataclasses import dataclass

from emergent_alignment.parallel.chips import Chip
from emergent_alignment.planning.hlo import Cost
from emergent_alignment.planning.links import HOP_SECONDS


@dataclass(frozen=True)
class Roofline:
    """Seconds that each limit alone would take, all work at its data sheet's rate; `interconnect`
    has the bytes, over the links that each collective can use. Compute, memory and interconnect can
    overlap, so that none of them being idle the largest is the time; the `latency` of hops comes
    on top, since what waits for a small collective cannot begin. What is really reached is less,
    and no plan knows how much."""

    compute: float
    memory: float
    interconnect: float
    latency: float = 0.0

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory, self.interconnect) + self.latency

    @property
    def limit(self) -> str:
        """Which of the three it is."""
        times = {"compute": self.compute, "HBM": self.memory, "interconnect": self.interconnect}
        return max(times, key=times.get)


def roofline(chip: Chip, cost: Cost) -> Roofline | None:
    """None for a chip without a data sheet."""
    if chip.peak_flops is None:
        return None
    return Roofline(
        cost.flops / chip.peak_flops,
        cost.hbm_bytes / chip.hbm_bandwidth,
        cost.link_bytes / chip.ici_bandwidth,
        cost.hops * HOP_SECONDS,
    )


def peak_share(chip: Chip, num_chips: int, ideal_flops: float, seconds: float) -> float:
    """The share of all chips' peak that goes into `ideal_flops` (models/ideal.py) done in
    `seconds`: the model FLOPs utilisation (MFU; Chowdhery et al. 2022, PaLM, appendix B)."""
    return ideal_flops / (seconds * num_chips * chip.peak_flops)
