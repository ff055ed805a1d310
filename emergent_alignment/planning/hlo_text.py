"""The text of a compiled program: computations, instructions, shapes, trip counts of loops.

What they cost is in hlo.py. The text, and not `cost_analysis()`, because that counts a loop's body
once, and says nothing of collectives.
"""

import functools
import math
import re
from dataclasses import dataclass, field

_INSTRUCTION = re.compile(r"^  (ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_BITS = re.compile(r"[a-z]+?(\d+)")


@dataclass(frozen=True)
class Array:
    """An array's type; `memory` is 0 for the device's main memory (HBM)."""

    dtype: str
    shape: tuple[int, ...]
    memory: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        bits = _BITS.match(self.dtype)
        return self.size * (int(bits[1]) if bits else 8) // 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class HloInstruction:
    """`arrays` is its result (several where it is a tuple), `rest` the attributes as text."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    literal: str
    rest: str

    def attribute(self, pattern: str) -> str | None:
        """The first group of a regular expression in the attributes."""
        match = re.search(pattern, self.rest)
        return match[1] if match else None

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """The computations that it runs: of a fusion, a call, a conditional, an async start (not
        the reducers of reductions)."""
        if self.opcode == "conditional":
            many = self.attribute(r"branch_computations=\{([^}]*)\}")
            if many is None:
                pattern = r"(?:true|false)_computation=%?([\w.\-]+)"
                return tuple(re.findall(pattern, self.rest))
            return tuple(name.strip().lstrip("%") for name in many.split(","))
        key = "to_apply" if self.opcode == "call" else "calls"
        one = self.attribute(rf"\b{key}=%?([\w.\-]+)")
        return () if one is None else (one,)


@dataclass(frozen=True)
class Computation:
    """Instructions in the order of the schedule."""

    name: str
    instructions: dict[str, HloInstruction] = field(default_factory=dict)
    root: str = ""

    @functools.cached_property
    def parameters(self) -> dict[int, HloInstruction]:
        """By number."""
        parameters = (one for one in self.instructions.values() if one.opcode == "parameter")
        return {int(one.literal): one for one in parameters}

    @functools.cached_property
    def users(self) -> dict[str, list[HloInstruction]]:
        """Who reads each value."""
        users: dict[str, list[HloInstruction]] = {}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                users.setdefault(operand, []).append(instruction)
        return users


@dataclass(frozen=True)
class HloModule:
    """A module's computations by name."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> HloModule:
    """A `compiled.as_text()`. Raises ValueError where there is no entry computation."""
    computations: dict[str, Computation] = {}
    entry, name, root, held = "", "", "", {}
    for line in _logical_lines(text):
        started = _COMPUTATION.match(line)
        if started and line.endswith("{"):
            name, held, root = started[2], {}, ""
            entry = name if started[1] else entry
        elif line == "}":
            computations[name] = Computation(name, held, root)
        elif matched := _INSTRUCTION.match(line):
            instruction = _instruction(matched[2], line[matched.end() :])
            held[instruction.name] = instruction
            root = instruction.name if matched[1] else root
    if not entry:
        raise ValueError("this is not the text of a compiled program: it has no ENTRY")
    return HloModule(computations, entry)


def _logical_lines(text: str):
    """Attributes of a kernel may hold line breaks: those lines are joined."""
    pending = None
    for line in text.splitlines():
        if _INSTRUCTION.match(line) or _COMPUTATION.match(line) or line == "}":
            if pending is not None:
                yield pending
            pending = line
        elif pending is not None:
            pending += line
    if pending is not None:
        yield pending


def _instruction(name: str, text: str) -> HloInstruction:
    type_end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opened = text.index("(", type_end)
    closed = _closing(text, opened)
    inside = text[opened + 1 : closed]
    return HloInstruction(
        name,
        text[type_end:opened].strip(),
        arrays_of(text[:type_end]),
        tuple(re.findall(r"%([\w.\-]+)", inside)),
        inside,
        text[closed + 1 :],
    )


def _closing(text: str, opened: int) -> int:
    """Where the parenthesis that opens at `opened` closes."""
    depth = 0
    for place in range(opened, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"a parenthesis is not closed: {text[:200]}")


def arrays_of(text: str) -> tuple[Array, ...]:
    """All arrays of a type, such as (f32[8,128]{1,0:T(8,128)S(1)}, s32[])."""
    arrays = []
    for dtype, sizes, layout in _ARRAY.findall(text):
        memory = re.search(r"S\((\d+)\)", layout)
        shape = tuple(int(size) for size in sizes.split(",") if size)
        arrays.append(Array(dtype, shape, int(memory[1]) if memory else 0))
    return tuple(arrays)


def trip_count(program: HloModule, inside: Computation, loop: HloInstruction) -> int | None:
    """How often a while loop's body runs; None where data decide it.

    XLA notes it on CPUs (known_trip_count); elsewhere the loop's counter is run: integers that
    follow from constants alone, until the condition fails.
    """
    known = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
    if known is not None:
        return int(known)
    condition = program.computations[loop.attribute(r"condition=%?([\w.\-]+)")]
    body = program.computations[loop.attribute(r"body=%?([\w.\-]+)")]
    start = inside.instructions[loop.operands[0]]
    if start.opcode != "tuple":
        return None
    counter = _Counter(inside, start, body)
    for step in range(10**6):
        goes_on = counter.value(condition, condition.root, step)
        if goes_on is None:
            return None
        if not goes_on:
            return step
    return None


_COMPARISONS = {
    "LT": int.__lt__,
    "LE": int.__le__,
    "GT": int.__gt__,
    "GE": int.__ge__,
    "NE": int.__ne__,
    "EQ": int.__eq__,
}
_ARITHMETIC = {"add": int.__add__, "subtract": int.__sub__, "multiply": int.__mul__}


class _Counter:
    """The integers of a loop's state that constants decide, step by step."""

    def __init__(self, before: Computation, start: HloInstruction, body: Computation):
        self.before, self.start, self.body = before, start, body
        self.state: dict[int, int | None] = {}  # by place in the loop's tuple, those asked for
        self.step = 0

    def value(self, computation: Computation, name: str, step: int) -> int | None:
        """An integer of the condition at the start of step `step`; steps come in order."""
        if step > self.step:
            results = self.body.instructions[self.body.root].operands
            following: dict[int, int | None] = {}
            # What one integer needs from the others is asked for while it is computed.
            while missing := self.state.keys() - following.keys():
                following |= {place: self._value(self.body, results[place]) for place in missing}
            self.state, self.step = following, step
        return self._value(computation, name)

    def _value(self, computation: Computation, name: str) -> int | None:
        one = computation.instructions[name]
        if one.opcode == "constant":
            return int(one.literal) if re.fullmatch(r"-?\d+", one.literal) else None
        if one.opcode in ("copy", "bitcast", "convert"):
            return self._value(computation, one.operands[0])
        if one.opcode == "get-tuple-element" and computation is not self.before:
            if computation.instructions[one.operands[0]].opcode != "parameter":
                return None
            return self._of_state(int(one.attribute(r"index=(\d+)")))
        if one.opcode in _ARITHMETIC or one.opcode == "compare":
            pair = [self._value(computation, operand) for operand in one.operands]
            if None in pair:
                return None
            compare = _COMPARISONS.get(one.attribute(r"direction=(\w+)"))
            return (_ARITHMETIC.get(one.opcode) or compare)(*pair)
        return None

    def _of_state(self, place: int) -> int | None:
        if place not in self.state:
            if self.step:
                return None
            self.state[place] = self._value(self.before, self.start.operands[place])
        return self.state[place]
