"""The talk between the judge and the answer, over two pipes: each asks the other for what only the
other has, and gets plain data, or a stand-in for an object which stays where it is (remote.py).

Nothing that comes in is run, unpickled, or taken for more than a value. It imports the standard
library alone.
"""

import _thread
import os
import types

from emergent_alignment.evaluation.coding.plain_values import (
    MOST_FRAME_BYTES,
    SHARED_KINDS,
    Broken,
    Values,
    standard_name,
)
from emergent_alignment.evaluation.coding.remote import (
    CLASS,
    COROUTINE,
    StandIn,
    data_class,
    describe,
    number_of,
    remote_class,
    set_up,
)


class Ended(BaseException):
    """The other side is gone."""


class Talk(Values):
    """One end. Both ends ask and answer: while one waits for what it has asked for, it does what
    the other asks meanwhile."""

    def __init__(self, first: int, reading: int, writing: int):
        super().__init__(first)
        self._reader = os.fdopen(reading, "rb")
        self._writing = writing
        self._lock = _thread.RLock()
        self._own: dict[int, object] = {}
        self._own_numbers: dict[int, int] = {}  # by identity
        self._theirs: dict[int, object] = {}
        self._their_errors: dict[type, int] = {}
        self._classes: dict[tuple, type] = {}

    def serve(self, operation: str, arguments: list) -> object:
        """What the other side asks for. Raises what it raises."""
        raise NotImplementedError

    def special(self, remote: StandIn, name: str, arguments: tuple, named: dict) -> object:
        """One special method of an object of the other side's."""
        return self.ask("special", remote, name, arguments, tuple(named.items()))

    def belongs(self, question: str, value: object, kind: StandIn) -> bool:
        """Whether an object of the other side's is of a class, or a class under it."""
        return number_of(value) is not None and self.ask(question, value, kind) is True

    def copied(self, remote: StandIn, how: str) -> object:
        """A copy of it, over there."""
        return self.ask(how, remote)

    def pickled(self, remote: StandIn) -> object:
        """How it is pickled."""
        raise TypeError("an object of another process cannot be pickled")

    def gone(self) -> list[int]:
        """The numbers of shared values that this side has let go."""
        return []

    def where(self, error: BaseException) -> str:
        """The place in the answer that has raised it, "" where that is unknown."""
        return getattr(error, "_remote_where", "")

    def ask(self, operation: str, *arguments: object) -> object:
        """Have the other side do it; raises the error that it raises there."""
        with self._lock:
            self.send("do", operation, *arguments)
            while True:
                head, *parts = self.receive()
                if head == "do":
                    self.answer(parts)
                elif head == "gave":
                    return parts[0]
                elif head == "raised" and isinstance(parts[0], BaseException):
                    raise parts[0]
                else:
                    raise Broken("an answer that is none")

    def answer(self, parts: list) -> None:
        """Do what the other side has asked for, and say what came of it."""
        try:
            result = self.serve(parts[0], parts[1:])
        except (Ended, Broken):
            raise
        except BaseException as error:  # it is the other side's to catch
            self.send("raised", error)
            return
        self.send("gave", result)

    def send(self, head: str, *parts: object) -> None:
        """Write one message. Raises Ended where nobody reads it any more."""
        line = self.pack(head, *parts, gone=self.gone())
        try:
            while line:
                line = line[os.write(self._writing, line) :]
        except OSError:
            raise Ended from None

    def receive(self) -> list:
        """Read one message. Raises Ended at the pipe's end, Broken for what is no message."""
        line = self._reader.readline(MOST_FRAME_BYTES)
        if not line.endswith(b"\n"):
            raise Broken("a message without end") if line else Ended
        return self.unpack(line)

    def refer(self, value: object) -> list:
        """As `Values` wants it: by its number, with what can be asked of it."""
        number = number_of(value)
        if number is not None:
            return ["yours", number]
        if isinstance(value, type) and value in self._their_errors:
            return ["yours", self._their_errors[value]]
        if isinstance(value, BaseException):
            return self._refer_error(value)
        if isinstance(value, type) and issubclass(value, BaseException):
            bases = [standard_name(base) or self.refer(base) for base in value.__bases__]
            return ["error class", self._number_own(value), value.__name__, bases]
        sort = CLASS if isinstance(value, type) else ""
        sort = COROUTINE if isinstance(value, types.CoroutineType) else sort
        reference = ["object", self._number_own(value), sort, *describe(type(value))]
        plain = None if self.is_shared(value) else self.plain_base(value)
        return reference if plain is None else ["data", plain, reference]

    def _refer_error(self, error: BaseException) -> list:
        kind, arguments = type(error), self.encode(tuple(error.args))
        try:
            said = str(error)
        except BaseException:  # an answer's exception may have a __str__ that raises
            said = kind.__name__
        named = standard_name(kind)
        held = None if named else self._number_own(error)
        return ["error", named or self.refer(kind), arguments, said, self.where(error), held]

    def _number_own(self, value: object) -> int:
        number = self._own_numbers.get(id(value))
        if number is None:
            number = self._own_numbers[id(value)] = len(self._own)
            self._own[number] = value
        return number

    def resolve(self, tag: str, parts: list) -> object:
        """As `Values` wants it. Raises what wrong forms raise."""
        if tag == "yours":
            return self._own[parts[0]]
        if tag == "object":
            return self._stand_in(*parts)
        if tag == "data":
            return self._data(parts[0], parts[1])
        if tag == "extended":
            return self._extended(*parts)
        if tag == "error class":
            return self._error_class(*parts)
        if tag == "error":
            return self._error(*parts)
        raise ValueError("no such kind")

    def _class(self, base: type | None, special: list, public: list) -> type:
        key = (base, tuple(special), tuple(public) if base else ())
        if key not in self._classes:
            made = remote_class(key[1]) if base is None else data_class(*key)
            self._classes[key] = made
        return self._classes[key]

    def _stand_in(self, number: int, sort: str, special: list, public: list) -> object:
        if sort == COROUTINE:
            return self._awaited(["object", number, "", special, public])
        if number not in self._theirs:
            made = self._class(None, special, public)
            self._theirs[number] = set_up(made(), self, int(number), str(sort))
        return self._theirs[number]

    async def _awaited(self, reference: list) -> object:
        return self.ask("await", self.decode(reference))

    def _data(self, plain: object, reference: list) -> object:
        held, (_, number, sort, special, public) = self.decode(plain), reference
        if type(held) in (str, int, float, bytes, tuple, frozenset, complex):
            made = self._class(type(held), special, public)
            return set_up(made(held), self, int(number), str(sort))
        raise ValueError("no plain data")

    def _extended(self, kind: str, reference: list) -> object:
        _, number, sort, special, public = reference
        made = self._class(SHARED_KINDS[kind], special, public)
        return set_up(made(), self, int(number), str(sort))

    def _error_class(self, number: int, name: str, bases: list) -> type:
        if number not in self._theirs:
            under = tuple(self.decode(base) for base in bases)
            if not under or not all(issubclass(base, BaseException) for base in under):
                raise ValueError("no class of errors")
            methods = {"__getattr__": _asked_of_error, "__str__": _said_by_error}
            made = type(str(name), under, methods | {"__module__": "answer"})
            self._theirs[number], self._their_errors[made] = made, number
        return self._theirs[number]

    def _error(
        self, kind: object, arguments: object, said: str, where: str, held: int | None
    ) -> BaseException:
        made, given = self.decode(kind), self.decode(arguments)
        if not issubclass(made, BaseException):
            raise ValueError("no class of errors")
        try:
            error = made(*given)
        except Exception:  # it wants other arguments than it keeps
            error = made.__new__(made)
            error.args = given
        error._remote_where, error._remote_said = str(where), str(said)
        if held is not None:
            stand_in = self._class(None, [], [])()
            error._remote_object = set_up(stand_in, self, int(held), "")
        return error


def _asked_of_error(error: BaseException, name: str) -> object:
    if name.startswith("_remote_") or "_remote_object" not in vars(error):
        raise AttributeError(name)
    return getattr(error._remote_object, name)


def _said_by_error(error: BaseException) -> str:
    return vars(error).get("_remote_said", ", ".join(map(str, error.args)))
