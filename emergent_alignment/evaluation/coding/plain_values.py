"""What crosses between the judge and the answer: plain data, written in JSON of a strict form.

Numbers, texts, bytes, tuples and the like are copied. Lists, dicts and sets are kept alike on both
sides: each message tells what has changed in those that both hold, so that a list that a call
changes is changed for its caller. What is no plain data is for `Values.refer` and `Values.resolve`
of the two ends. It imports the standard library alone.
"""

import builtins
import collections
import importlib
import json
import sys
import types

SCALARS = (bool, int, float, str)
MOST_FRAME_BYTES = 256 * 2**20
# (module, name, what it is made of) of values that are copied, where their module is in use.
_COPIED = {
    ("decimal", "Decimal"): lambda v: (str(v),),
    ("fractions", "Fraction"): lambda v: (v.numerator, v.denominator),
    ("datetime", "date"): lambda v: (v.year, v.month, v.day),
    ("datetime", "timedelta"): lambda v: (v.days, v.seconds, v.microseconds),
    ("datetime", "time"): lambda v: (v.hour, v.minute, v.second, v.microsecond),
    ("datetime", "datetime"): lambda v: (
        v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond,
    ),
    ("uuid", "UUID"): lambda v: (str(v),),
}  # fmt: skip
_DICTS = {"dict": dict, "OrderedDict": collections.OrderedDict, "Counter": collections.Counter}
_DICTS["defaultdict"] = collections.defaultdict
SHARED_KINDS = {
    "list": list,
    "set": set,
    "deque": collections.deque,
    "bytearray": bytearray,
} | _DICTS
_KINDS = {kind: name for name, kind in SHARED_KINDS.items()}
_VIEWS = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}
_PLAIN_BASES = {"str": str, "int": int, "float": float, "bytes": bytes, "tuple": tuple}
_PLAIN_BASES |= {"frozenset": frozenset, "complex": complex}
_BUILTINS = {id(v): name for name, v in vars(builtins).items() if callable(v)}
_TABLE: dict[int, object] = {0: []}
_UNHELD = sys.getrefcount(_TABLE[0])  # of what a table alone holds
# Modules whose functions and classes are both sides' own: nothing of theirs equals everything, as
# unittest.mock's do.
_STANDARD = frozenset(
    "abc array bisect builtins calendar cmath collections collections.abc copy dataclasses "
    "datetime decimal enum fractions functools hashlib heapq io itertools json math numbers "
    "operator os posixpath random re statistics string struct sys textwrap time uuid".split()
)
# What does something when it is imported.
_NOT_IMPORTED = ("antigravity", "this", "idlelib", "turtledemo", "lib2to3", "test")
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
_OWN_ERRORS = ("unittest", "doctest", "bdb")  # theirs say more to a test than that it failed


class Broken(BaseException):
    """The other side sent what no message of this form is."""


class Values:
    """One side's writing and reading of values; `first` and every second number after it are the
    numbers of what it shares first, so that the two sides' never meet."""

    def __init__(self, first: int):
        self._next = first
        self._shared: dict[int, object] = {}
        self._numbers: dict[int, int] = {}  # by identity
        self._seen: dict[int, str] = {}  # the contents that both sides know
        self._reading = 0

    def refer(self, value: object) -> list:
        """How something that stays on this side is named."""
        raise NotImplementedError

    def resolve(self, tag: str, parts: list) -> object:
        """What the other side names so."""
        raise NotImplementedError

    def pack(self, head: str, *parts: object, gone: tuple = ()) -> bytes:
        """A message as a line; what has changed since the last goes with it."""
        body = json.dumps([head, *map(self.encode, parts)])
        changed: dict[int, str] = {}
        checked: set[int] = set()
        while left := [number for number in self._shared if number not in checked]:
            checked.update(left)
            for number in left:
                if self._reading and number in self._seen:
                    continue  # half read
                text = json.dumps(self._contents(self._shared[number]))
                if text != self._seen.get(number):
                    changed[number] = self._seen[number] = text
        contents = ",".join(f'"{number}":{text}' for number, text in changed.items())
        line = f'{{"body":{body},"gone":{json.dumps(gone)},"contents":{{{contents}}}}}\n'
        return line.encode()

    def unpack(self, line: bytes) -> list:
        """The parts of a message. Raises Broken for what is none."""
        try:
            message = json.loads(line)
            self._reading += 1
            try:
                return self._unpacked(message)
            finally:
                self._reading -= 1
        except MemoryError:
            raise
        except Exception as error:  # whatever decoding raises: who sends may send anything
            raise Broken(f"the answer's process sent no message: {error!r:.200}") from None

    def _unpacked(self, message: object) -> list:
        for number in message["gone"]:
            self._forget(number)
        contents = {int(number): packed for number, packed in message["contents"].items()}
        for number, packed in contents.items():
            self._seen[number] = json.dumps(packed)
            if number not in self._shared:
                self.keep(number, self._empty(packed))
            elif self._kind_of(self._shared[number]) != packed[0]:
                raise ValueError("another kind")
        for number, packed in contents.items():
            self._fill(self._shared[number], packed)
        head, *parts = message["body"]
        return [head, *map(self.decode, parts)]

    def keep(self, number: int, value: object) -> None:
        """`value` is shared as `number` from now on."""
        self._shared[number] = value
        self._numbers[id(value)] = number

    def _forget(self, number: int) -> None:
        value = self._shared.pop(number, None)
        self._numbers.pop(id(value), None)
        self._seen.pop(number, None)

    def drop_unused(self) -> list[int]:
        """The numbers of what nobody else holds on this side any more; they are free."""
        unused = [n for n in self._shared if sys.getrefcount(self._shared[n]) <= _UNHELD]
        for number in unused:
            self._forget(number)
        return unused

    def encode(self, value: object) -> object:
        """As JSON: a scalar for itself, anything else a list that begins with its kind."""
        kind = type(value)
        if value is None or kind in SCALARS:
            return value
        if kind is tuple or kind is frozenset:
            return [kind.__name__, *map(self.encode, value)]
        if kind is bytes:
            return ["bytes", value.decode("latin-1")]
        if kind is complex:
            return ["complex", value.real, value.imag]
        if kind is range or kind is slice:
            return [kind.__name__, *map(self.encode, (value.start, value.stop, value.step))]
        if value is Ellipsis or value is NotImplemented:
            return [repr(value)]
        if kind in _VIEWS:
            return ["view", _VIEWS[kind], *map(self.encode, value)]
        if self.is_shared(value):
            return ["shared", self._number_of(value)]
        made_of = _COPIED.get((kind.__module__, kind.__name__))
        if made_of and not getattr(value, "tzinfo", None):
            return ["copied", kind.__module__, kind.__name__, *made_of(value)]
        return standard_name(value) or self.refer(value)

    def is_shared(self, value: object) -> bool:
        """Whether it is a container that can change, of a kind that both sides have."""
        return isinstance(value, (list, dict, set, bytearray, collections.deque))

    def plain_base(self, value: object) -> list | None:
        """The plain data that an instance of a subclass of a plain type holds, encoded."""
        for kind in _PLAIN_BASES.values():
            if isinstance(value, kind) and not isinstance(value, bool):
                if kind is int:
                    return self.encode(int.__index__(value))
                plain = kind.__getnewargs__(value) if hasattr(kind, "__getnewargs__") else None
                if kind in (tuple, frozenset):
                    return self.encode(kind(kind.__iter__(value)))
                return self.encode(kind(*plain))
        return None

    def _number_of(self, value: object) -> int:
        if id(value) not in self._numbers:
            self.keep(self._next, value)
            self._next += 2
        return self._numbers[id(value)]

    def _kind_of(self, value: object) -> str:
        for kind in type(value).__mro__:
            if kind in _KINDS:
                return _KINDS[kind]
        raise TypeError(f"{type(value).__name__} is not shared")

    def _contents(self, value: object) -> list:
        """[kind, what else it needs, the name of the object whose class adds to the kind, items]"""
        kind, more, extends = self._kind_of(value), None, None
        if type(value) not in _KINDS:
            extends = self.refer(value)
        if kind == "bytearray":
            return [kind, more, extends, bytes(value).decode("latin-1")]
        if kind in _DICTS:
            if kind == "defaultdict":
                more = self.encode(value.default_factory)
            pairs = dict.items(value)
            return [kind, more, extends, [[self.encode(k), self.encode(v)] for k, v in pairs]]
        if kind == "deque":
            more = value.maxlen
        items = [*SHARED_KINDS[kind].__iter__(value)]
        if not set(map(type, items)) <= {int, str, float, bool}:
            items = [self.encode(item) for item in items]
        if kind == "set":
            items.sort(key=json.dumps)
        return [kind, more, extends, items]

    def _empty(self, packed: list) -> object:
        kind, more, extends, _ = packed
        if extends is not None:
            return self.resolve("extended", [kind, extends])
        if kind == "defaultdict":
            return collections.defaultdict(self.decode(more))
        return collections.deque(maxlen=more) if kind == "deque" else SHARED_KINDS[kind]()

    def _fill(self, value: object, packed: list) -> None:
        kind, _, _, items = packed
        if kind in _DICTS:
            pairs = [(self.decode(k), self.decode(v)) for k, v in items]
            dict.clear(value)
            dict.update(value, pairs)
        elif kind == "bytearray":
            value[:] = items.encode("latin-1")
        else:
            items = [self.decode(item) for item in items]
            of = SHARED_KINDS[kind]
            of.clear(value)
            (of.update if kind == "set" else of.extend)(value, items)

    def decode(self, message: object) -> object:
        """The value of what `encode` wrote. Raises what wrong forms raise."""
        if not isinstance(message, list):
            if isinstance(message, dict):
                raise ValueError("an object")
            return message
        tag, *parts = message
        if tag == "shared":
            return self._shared[parts[0]]
        if tag in ("tuple", "frozenset"):
            return _PLAIN_BASES[tag](map(self.decode, parts))
        if tag == "bytes":
            return parts[0].encode("latin-1")
        if tag in ("complex", "range", "slice"):
            return getattr(builtins, tag)(*map(self.decode, parts))
        if tag in ("Ellipsis", "NotImplemented"):
            return getattr(builtins, tag)
        if tag == "view":
            return _view(parts[0], [self.decode(part) for part in parts[1:]])
        if tag == "copied":
            module, name, *made_of = parts
            if (module, name) not in _COPIED or not all(isinstance(m, SCALARS) for m in made_of):
                raise ValueError("no such value")
            return getattr(importlib.import_module(module), name)(*made_of)
        if tag == "standard":
            return _standard(*parts)
        return self.resolve(tag, parts)


def _view(which: str, items: list) -> object:
    if which == "values":
        return dict(enumerate(items)).values()
    return dict.fromkeys(items).keys() if which == "keys" else dict(items).items()


def standard_name(value: object) -> list | None:
    """The name of a function, a class or a module of Python's own: both sides have theirs."""
    if id(value) in _BUILTINS:
        return ["standard", "builtins", _BUILTINS[id(value)]]
    if isinstance(value, type(sys)):
        name = value.__name__
        return ["standard", name, ""] if _is_standard(value, name) else None
    if not isinstance(value, _NAMED):
        return None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or name.startswith("_"):
        return None
    if not _is_standard(value, module):
        return None
    standard = getattr(sys.modules.get(module), name, None)
    return ["standard", module, name] if standard is value else None


def _is_standard(value: object, module: str) -> bool:
    """Whether it may stand for itself on both sides, where the name of its module is believed."""
    if isinstance(value, type) and issubclass(value, BaseException):
        root = module.partition(".")[0]
        return root in sys.stdlib_module_names and root not in _OWN_ERRORS
    return module in _STANDARD and isinstance(value, _NAMED)


def _standard(module: str, name: str) -> object:
    """What both sides have by this name. Raises ValueError for what neither may hand over."""
    if module.partition(".")[0] not in sys.stdlib_module_names or name.startswith("_"):
        raise ValueError("not of the standard library")
    if module.partition(".")[0] in _NOT_IMPORTED:
        raise ValueError("not imported")
    standard = importlib.import_module(module)
    standard = getattr(standard, name) if name else standard
    if not _is_standard(standard, module):
        raise ValueError("not handed over")
    return standard
