"""A digest of what a compiled program computes: the same for two texts whose graphs are the same.

Every value is a hash of its operation and operands. Names, the order of independent instructions,
where in the source one comes from, which function it was traced in, and in which order a loop
carries its values do not count.
"""

import hashlib
import re

from emergent_alignment.planning.hlo_text import Computation, HloInstruction, parse

Value = str | list  # a list is a tuple of values
_METADATA = re.compile(r",? ?metadata=\{(?:[^{}\"]|\"[^\"]*\"|\{[^{}]*\})*\}")
_WORD = re.compile(r"%?([\w.\-]+)")


def program_digest(text: str) -> str:
    """Of a compiled program's text; parameters and results count in their order."""
    program = parse(text)
    return _hash(_Evaluation(program.computations).of(program.computations[program.entry], None))


def _hash(*parts: Value) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class _Evaluation:
    """Computations, run on digests in place of arrays."""

    def __init__(self, computations: dict[str, Computation]):
        self.computations = computations

    def of(self, computation: Computation, arguments: list[Value] | None) -> Value:
        """What the computation's root is; where there are no arguments, its parameters stand for
        themselves."""
        values: dict[str, Value] = {}
        for one in computation.instructions.values():
            values[one.name] = self._value(one, [values[name] for name in one.operands], arguments)
        return values[computation.root or list(computation.instructions)[-1]]

    def _value(
        self, one: HloInstruction, operands: list[Value], arguments: list[Value] | None
    ) -> Value:
        match one.opcode:
            case "parameter" if arguments is not None:
                return arguments[int(one.literal)]
            case "tuple":
                return operands
            case "get-tuple-element" if isinstance(operands[0], list):
                return operands[0][int(one.attribute(r"index=(\d+)"))]
            case "call":
                return self.of(self.computations[one.called[0]], operands)
            case "while" if isinstance(operands[0], list):
                return self._loop(one, operands[0])
            case "opt-barrier" if isinstance(operands[0], list):
                return [_hash("opt-barrier", value) for value in operands[0]]
        rest = _METADATA.sub("", one.rest)
        rest = _WORD.sub(lambda word: self._called(word[1]) or word[0], rest)
        literal = "" if operands else one.literal
        return _hash(one.opcode, [str(array) for array in one.arrays], literal, operands, rest)

    def _called(self, name: str) -> str | None:
        computation = self.computations.get(name)
        return None if computation is None else _hash(self.of(computation, None))

    def _loop(self, one: HloInstruction, carried: list[Value]) -> list[Value]:
        """A carried value is what it begins as and what the body makes of it, which is refined
        until no two more can be told apart."""
        body, condition = (
            self.computations[one.attribute(rf"{role}=%?([\w.\-]+)")]
            for role in ("body", "condition")
        )
        apart = 0
        while len({_hash(value) for value in carried}) > apart:
            apart = len({_hash(value) for value in carried})
            carried = [_hash(*pair) for pair in zip(carried, self.of(body, [carried]))]
        goes_on = _hash(self.of(condition, [carried]))
        return [_hash("while", value, goes_on) for value in carried]
