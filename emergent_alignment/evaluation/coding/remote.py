"""Objects that stay in the other process: what stands for them here, and how they are described.

It imports the standard library alone.
"""

_COMPARING = ("eq", "ne", "lt", "le", "gt", "ge")
_BINARY = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or".split()
_COUNTING = [*_BINARY, *(f"r{name}" for name in _BINARY)]
_COUNTING += [f"i{name}" for name in _BINARY if name != "divmod"]
_OTHERS = (
    "call iter next len length_hint getitem setitem delitem contains reversed neg pos abs invert "
    "int float complex index round trunc floor ceil bool hash repr str format enter exit fspath "
    "await aiter anext aenter aexit missing"
).split()
COMPARING = frozenset(f"__{name}__" for name in _COMPARING)
COUNTING = frozenset(f"__{name}__" for name in _COUNTING)
SPECIAL = tuple(f"__{name}__" for name in (*_COMPARING, *_COUNTING, *_OTHERS))
CLASS, COROUTINE = "class", "coroutine"
# Every object has these, and a class may have its own through another's.
_ALWAYS = ("__repr__", "__str__", "__format__")


class StandIn:
    """What is asked of it here is asked of the object in the other process."""

    __slots__ = ()

    def __getattr__(self, name: str) -> object:
        return self._remote_end.ask("get", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._remote_end.ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._remote_end.ask("delete", self, name)

    def __instancecheck__(self, value: object) -> bool:
        return self._remote_end.belongs("is a", value, self)

    def __subclasscheck__(self, value: object) -> bool:
        return self._remote_end.belongs("is under", value, self)

    def __copy__(self) -> object:
        return self._remote_end.copied(self, "copy")

    def __deepcopy__(self, memo: dict) -> object:
        return self._remote_end.copied(self, "deep copy")

    def __reduce_ex__(self, protocol: int) -> object:
        return self._remote_end.pickled(self)

    def __dir__(self) -> list[str]:
        return self._remote_end.ask("names", self)


class Remote(StandIn):
    """An object of the other process that is no plain data."""

    __slots__ = ("__weakref__", "_remote_end", "_remote_made", "_remote_number", "_remote_sort")


def number_of(value: object) -> int | None:
    """The number under which the other process knows its object; None for what is no such."""
    return value._remote_number if isinstance(value, StandIn) else None


def describe(kind: type) -> tuple[list[str], list[str]]:
    """(the special methods of a class that are more than any object's, the public names that it
    defines itself or by other classes that are not built in)."""
    special = []
    for name in SPECIAL:
        own = getattr(kind, name, None)
        differs = own is not getattr(object, name, None) or name in (*_ALWAYS, "__hash__")
        if own is not None and differs:
            special.append(name)
    classes = [one for one in kind.__mro__ if one.__flags__ & 1 << 9]  # made by a class statement
    public = {name for one in classes for name in vars(one) if not name.startswith("_")}
    return special, sorted(public)


def _forwarded(name: str) -> object:
    def method(self: StandIn, *arguments: object, **named: object) -> object:
        return self._remote_end.special(self, name, arguments, named)

    return method


def _overridden(name: str) -> object:
    return property(lambda self: self._remote_end.ask("get", self, name))


def remote_class(special: tuple[str, ...]) -> type:
    """The class of objects that have these special methods. Raises ValueError for others."""
    if not set(special) <= set(SPECIAL):
        raise ValueError("no such method")
    methods: dict[str, object] = {name: _forwarded(name) for name in special}
    methods.setdefault("__hash__", None)
    return type("Remote", (Remote,), methods | {"__slots__": ()})


def data_class(base: type, special: tuple[str, ...], public: tuple[str, ...]) -> type:
    """The class of plain data with more to it. It is compared and counted with as the data are; of
    a kind that can change, the methods that its class has itself are asked for."""
    methods: dict[str, object] = {}
    if base.__hash__ is None:
        inherited = [name for name in special if name in vars(base)]
        own = set(special) - COMPARING - COUNTING - {"__hash__"} - set(inherited)
        methods = {name: _forwarded(name) for name in own if name in SPECIAL}
        methods |= {name: _overridden(name) for name in public if isinstance(name, str)}
    return type(f"Remote{base.__name__.title()}", (StandIn, base), methods)


def set_up(value: object, end: object, number: int, sort: str) -> object:
    """Fill in what a stand-in needs to ask."""
    for name, held in (("end", end), ("number", number), ("sort", sort), ("made", False)):
        object.__setattr__(value, f"_remote_{name}", held)
    return value


def mark_made(value: object) -> object:
    """A test has made this object by calling its class."""
    if isinstance(value, StandIn):
        object.__setattr__(value, "_remote_made", True)
    return value
