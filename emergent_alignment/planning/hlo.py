"""What a compiled program costs on each device: matmul FLOPs, bytes of HBM, bytes of collectives.

Loops are multiplied by their trip counts; of a conditional the dearest branch counts. Everything
is read from the program's text (hlo_text.py).
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from emergent_alignment.planning.hlo_text import (
    Array,
    Computation,
    HloInstruction,
    HloModule,
    parse,
    trip_count,
)
from emergent_alignment.planning.links import Links

COLLECTIVES = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
)
# They move nothing themselves, or what they run is counted.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast while conditional call after-all "
    "partition-id replica-id optimization-barrier domain async-update".split()
)
_SLICES = ("dynamic-slice", "slice", "gather")
KernelFlops = Callable[[str, tuple[Array, ...]], float]


@dataclass(frozen=True)
class Cost:
    """Sums over one run of a program on one device.

    flops        of matmuls and convolutions, a multiply-add counting as two, and of kernels; a
                 single row times a matrix is neither for XLA, and does not count
    hbm_bytes    operands and results of what is not fused, in the device's main memory
    sent         kind of collective → bytes this device sends, by the ring algorithm
    calls        kind of collective → how often
    link_bytes   `sent`, each collective's divided by the share of the chip's links that it can use
    hops         from chip to chip, one after the other, of all collectives
    copied       type of array → bytes written by copies of it
    kernels      name of a kernel → how often
    """

    flops: float = 0.0
    hbm_bytes: float = 0.0
    sent: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)
    link_bytes: float = 0.0
    hops: int = 0
    copied: Counter = field(default_factory=Counter)
    kernels: Counter = field(default_factory=Counter)

    def plus(self, other: "Cost", times: int = 1) -> "Cost":
        """This and `times` the other."""

        def added(ours: Counter, theirs: Counter) -> Counter:
            return Counter({k: ours[k] + times * theirs[k] for k in ours | theirs})

        return Cost(
            self.flops + times * other.flops,
            self.hbm_bytes + times * other.hbm_bytes,
            added(self.sent, other.sent),
            added(self.calls, other.calls),
            self.link_bytes + times * other.link_bytes,
            self.hops + times * other.hops,
            added(self.copied, other.copied),
            added(self.kernels, other.kernels),
        )


def no_kernels(name: str, operands: tuple[Array, ...]) -> float:
    """For programs without custom kernels. Raises ValueError when there is one after all."""
    raise ValueError(f"the FLOPs of the kernel {name} are not known")


def program_cost(
    text: str,
    *,
    trips: Sequence[int] = (),
    kernel_flops: KernelFlops = no_kernels,
    links: Links | None = None,
) -> Cost:
    """The cost of one run, on each device, of a `compiled.as_text()`.

    `trips` are the trip counts of loops that data decide, in the program's order;
    kernel_flops(name, operands) gives those of Pallas kernels, which the text does not show.
    Without `links` every collective has all of them, and no hop takes time. Raises ValueError where
    a loop's trips are not known, or too many are given.
    """
    return _Counting(parse(text), list(trips), kernel_flops, links).all()


class _Counting:
    """One walk through a program."""

    def __init__(
        self,
        program: HloModule,
        trips: list[int],
        kernel_flops: KernelFlops,
        links: Links | None,
    ):
        self.program, self.trips, self.kernel_flops = program, trips, kernel_flops
        self.links = links
        self.known: dict[tuple[str, bool], Cost] = {}

    def all(self) -> Cost:
        cost = self.of(self.program.entry)
        if self.trips:
            raise ValueError(f"{len(self.trips)} trip counts are for no loop of this program")
        return cost

    def of(self, name: str, fused: bool = False) -> Cost:
        """A computation's cost; inside a fusion nothing goes through HBM."""
        if (name, fused) not in self.known:
            computation = self.program.computations[name]
            cost = Cost()
            for instruction in computation.instructions.values():
                times, part = self._one(computation, instruction, fused)
                cost = cost.plus(part, times)
            self.known[name, fused] = cost
        return self.known[name, fused]

    def _one(self, inside: Computation, one: HloInstruction, fused: bool) -> tuple[int, Cost]:
        if one.opcode == "while":
            times = trip_count(self.program, inside, one)
            if times is None:
                if not self.trips:
                    raise ValueError(f"how often the loop {one.name} runs is for data to decide")
                times = self.trips.pop(0)
            body, asked = (
                self.of(one.attribute(rf"{part}=%?([\w.\-]+)"), fused)
                for part in ("body", "condition")
            )
            return times, body.plus(asked)
        if one.opcode == "conditional":
            branches = (self.of(name, fused) for name in one.called)
            return 1, max(branches, key=lambda cost: (cost.flops, cost.hbm_bytes))
        cost = self._own(inside, one)
        if not fused:
            cost = cost.plus(Cost(hbm_bytes=_hbm_bytes(self.program, inside, one)))
        for name in one.called:
            cost = cost.plus(self.of(name, fused or one.opcode != "call"))
        return 1, cost

    def _own(self, inside: Computation, one: HloInstruction) -> Cost:
        """FLOPs, collective and copy of a single instruction."""
        operands = tuple(
            array for name in one.operands for array in inside.instructions[name].arrays
        )
        if one.opcode == "dot":
            return Cost(_dot_flops(one, operands))
        if one.opcode == "convolution":
            return Cost(_convolution_flops(one, operands))
        if one.opcode == "custom-call" and '"tpu_custom_call"' in one.rest:
            name = one.name.split(".")[0]
            return Cost(self.kernel_flops(name, operands), kernels=Counter({name: 1}))
        kind = one.opcode.removesuffix("-start")
        if kind in COLLECTIVES and not _continues(inside, one):
            scatters = kind == "all-reduce" and _is_scattered(inside, one)
            kind = "reduce-scatter" if scatters else kind
            return _collective(kind, one, operands, self.links)
        if kind == "copy":
            return Cost(copied=Counter({str(one.arrays[0]): one.arrays[0].num_bytes}))
        return Cost()


def _dot_flops(one: HloInstruction, operands: tuple[Array, ...]) -> float:
    contracted = one.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    sizes = (operands[0].shape[int(axis)] for axis in contracted.split(",") if axis)
    return 2.0 * one.arrays[0].size * math.prod(sizes)


def _convolution_flops(one: HloInstruction, operands: tuple[Array, ...]) -> float:
    """Matmuls on TPUs are convolutions. As in XLA's HloCostAnalysis, products with padding and
    with the holes of dilation do not count."""
    lhs, rhs, out = one.attribute(r"dim_labels=(\S+?)(?:,|$)").replace("->", "_").split("_")
    left, right, result = operands[0].shape, operands[1].shape, one.arrays[0].shape
    windows = _windows(one, len(left) - 2)
    products = 1
    for axis, window in enumerate(windows):
        label = str(axis)
        size, base = right[rhs.index(label)], left[lhs.index(label)]
        outputs = result[out.index(label)]
        products *= _valid_products(size, base, outputs, window)
    groups = int(one.attribute(r"batch_group_count=(\d+)") or 1)
    batch = left[lhs.index("b")] // groups
    return 2.0 * products * batch * right[rhs.index("i")] * right[rhs.index("o")]


@dataclass(frozen=True)
class _Window:
    stride: int = 1
    low: int = 0
    base_dilation: int = 1
    dilation: int = 1


def _windows(one: HloInstruction, rank: int) -> list[_Window]:
    text = one.attribute(r"window=\{([^}]*)\}") or ""
    fields = dict(word.split("=") for word in text.split())

    def numbers(name: str, default: str) -> list[int]:
        words = fields[name].split("x") if name in fields else [default] * rank
        return [int(word.split("_")[0]) for word in words]

    return [
        _Window(*each)
        for each in zip(
            numbers("stride", "1"),
            numbers("pad", "0_0"),
            numbers("lhs_dilate", "1"),
            numbers("rhs_dilate", "1"),
        )
    ]


def _valid_products(size: int, base: int, outputs: int, window: _Window) -> int:
    """Pairs of a window's place and an output whose input is there, and no hole."""
    starts = np.arange(outputs) * window.stride - window.low
    last = (base - 1) * window.base_dilation
    count = 0
    for place in range(size):
        at = starts + place * window.dilation
        count += np.count_nonzero((at >= 0) & (at <= last) & (at % window.base_dilation == 0))
    return count


def _continues(inside: Computation, one: HloInstruction) -> bool:
    """Whether this is a later part of a collective that goes on through several fusions, each of
    which shows it again (TPU's asynchronous collective fusion): the first one starts it."""
    if "async_collective_fusion_config" not in one.rest:
        return False
    return not any('"AsyncCollectiveStart"' in other.rest for other in inside.instructions.values())


def _is_scattered(inside: Computation, one: HloInstruction) -> bool:
    """Whether an all-reduce is fused with the slice that a device keeps of it: that is how TPU
    programs say reduce-scatter."""
    root = inside.instructions[inside.root]
    return inside.name.startswith("all-reduce-scatter") and one.name in root.operands


def _collective(
    kind: str, one: HloInstruction, operands: tuple[Array, ...], links: Links | None
) -> Cost:
    """What a device sends, by the ring algorithm (Thakur et al. 2005): all but its own part of
    what is gathered or scattered, that twice for an all-reduce."""
    devices = _group(one)
    group = len(devices)
    held = sum(array.num_bytes for array in operands)
    sent = {
        "all-gather": held * (group - 1),
        "reduce-scatter": held * (group - 1) / group,
        "all-reduce": 2 * held * (group - 1) / group,
        "all-to-all": held * (group - 1) / group,
        "collective-permute": held,
    }[kind]
    counters = {"sent": Counter({kind: sent}), "calls": Counter({kind: 1})}
    if links is None:
        return Cost(**counters, link_bytes=sent)
    ways = 2 if kind == "all-reduce" else 1  # scattered, and gathered again
    hops = ways * links.hops(devices)
    return Cost(**counters, link_bytes=sent / links.share(devices), hops=hops)


def _group(one: HloInstruction) -> list[int]:
    """The first of the groups of devices that take part together, in any of the three ways the
    text says it; of a permutation, the first pair."""
    listed = one.attribute(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]*)\}")
    if listed is not None:
        return [int(device) for device in listed.split(",")]
    counted = re.search(r"replica_groups=\[\d+,(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", one.rest)
    if counted is not None:
        shape = [int(size) for size in counted[2].split(",")]
        order = [int(axis) for axis in counted[3].split(",")] if counted[3] else None
        devices = np.arange(math.prod(shape)).reshape(shape).transpose(order)
        return devices.reshape(-1)[: int(counted[1])].tolist()
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", one.rest)
    if named is None:
        raise ValueError(f"{one.name}: which devices take part is not said: {one.rest[:200]}")
    sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
    together = re.findall(r"'(\w+)'", named[2])
    devices = np.arange(math.prod(sizes.values())).reshape([*sizes.values()])
    return (
        devices[tuple(slice(None) if axis in together else 0 for axis in sizes)]
        .reshape(-1)
        .tolist()
    )


def _hbm_bytes(program: HloModule, inside: Computation, one: HloInstruction) -> float:
    """Bytes read and written in HBM by an instruction that is not fused. A slice of a large array,
    and an update of one in place, count as the part alone, also inside a fusion."""
    if one.opcode in _FREE or one.opcode.endswith("-start"):
        return 0.0
    if one.opcode == "custom-call" and '"AllocateBuffer"' in one.rest:
        return 0.0
    started = one
    if one.opcode.endswith("-done"):
        started = inside.instructions[one.operands[0]]
    read = 0.0
    for place, name in enumerate(started.operands):
        arrays = inside.instructions[name].arrays
        if not any(array.memory == 0 for array in arrays):
            continue
        read += _read_of(program, inside, started, place, name)
    return read + sum(_written(program, inside, one))


def _read_of(
    program: HloModule, inside: Computation, reader: HloInstruction, place: int, name: str
) -> float:
    """Bytes of its operand number `place` that an instruction reads."""
    whole = sum(a.num_bytes for a in inside.instructions[name].arrays if a.memory == 0)
    if reader.opcode in _SLICES and place == 0:
        return min(whole, reader.arrays[0].num_bytes)
    if reader.opcode == "dynamic-update-slice" and place == 0:
        return 0.0
    if reader.opcode == "bitcast":
        return _read_by_all(program, inside, reader.name, whole)
    if reader.opcode == "fusion":
        fused = program.computations[reader.called[0]]
        return _read_by_all(program, fused, fused.parameters[place].name, whole)
    return whole


def _read_by_all(program: HloModule, inside: Computation, name: str, whole: float) -> float:
    users = inside.users.get(name, [])
    read = sum(
        _read_of(program, inside, user, place, name)
        for user in users
        for place, operand in enumerate(user.operands)
        if operand == name
    )
    return min(whole, read)


def _written(program: HloModule, inside: Computation, one: HloInstruction) -> Iterator[float]:
    """Bytes of each of an instruction's results that it writes in HBM."""
    roots = [(inside, one)] * len(one.arrays)
    if one.opcode == "fusion":
        roots = _roots(program, program.computations[one.called[0]])
    for array, (computation, root) in zip(one.arrays, roots):
        if array.memory:
            continue
        if root.opcode == "dynamic-update-slice":
            yield computation.instructions[root.operands[1]].arrays[0].num_bytes
        elif root.opcode != "parameter":  # handed through
            yield array.num_bytes


def _roots(program: HloModule, fused: Computation) -> list[tuple[Computation, HloInstruction]]:
    """The instructions that a fusion's results come from."""
    root = fused.instructions[fused.root]
    names = root.operands if root.opcode == "tuple" else (root.name,)
    roots = []
    for name in names:
        one, where = fused.instructions[name], fused
        while one.opcode in ("bitcast", "copy", "fusion") and len(one.arrays) == 1:
            if one.opcode == "fusion":
                where = program.computations[one.called[0]]
                one = where.instructions[where.root]
            else:
                one = where.instructions[one.operands[0]]
        roots.append((where, one))
    if root.opcode == "custom-call":
        roots *= len(root.arrays)
    return roots
