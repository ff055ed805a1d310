"""The judge's side of the sandbox: runs the tests, with the names of an answer that lives in
another process. What comes from there is a value and no more.

It runs inside the sandbox and imports the standard library alone.
"""

import builtins
import collections
import io
import sys
import traceback
import types

from emergent_alignment.evaluation.coding.answering import (
    ANSWER_MODULE,
    DETAIL_CHARACTERS,
    execute,
    failure,
)
from emergent_alignment.evaluation.coding.conversation import Broken, Ended, Talk
from emergent_alignment.evaluation.coding.remote import (
    CLASS,
    COMPARING,
    COUNTING,
    StandIn,
    mark_made,
    number_of,
)

TESTS = "tests"
_FAILURES = ("failed to run", "out of memory")
_OPEN = (io.StringIO, io.BytesIO)  # what tests hand to an answer to write into
_ALONE = 32  # so many items are asked for one by one, then ever more at once
_MOST_AT_ONCE = 512
_judges: list["JudgeTalk"] = []


class JudgeTalk(Talk):
    """What a test asks of the answer, and the little that it may ask of a test's objects."""

    def __init__(self, reading: int, writing: int):
        super().__init__(0, reading, writing)
        self._printing = sys.stdout
        self._items: dict[int, _Items] = {}
        self._asked = 0
        self.over: BaseException | None = None
        _judges[:] = [self]

    def gone(self) -> list[int]:
        """What no test holds any more need not be kept alike."""
        return [] if self._reading else self.drop_unused()

    def ask(self, operation: str, *arguments: object) -> object:
        """As `Talk.ask`; what the answer prints goes to where the test has turned printing to."""
        self._asked += 1
        if sys.stdout is self._printing:
            return super().ask(operation, *arguments)
        super().ask("collect")
        try:
            return super().ask(operation, *arguments)
        finally:
            sys.stdout.write(str(super().ask("collected")))

    def receive(self) -> list:
        """As `Talk.receive`; a test that catches everything does not catch the talk's end."""
        try:
            return super().receive()
        except (Ended, Broken) as error:
            self.over = error
            raise

    def send(self, head: str, *parts: object) -> None:
        """As `Talk.send`, likewise."""
        try:
            super().send(head, *parts)
        except Ended as error:
            self.over = error
            raise

    def special(self, remote: StandIn, name: str, arguments: tuple, named: dict) -> object:
        """What the answer's object says of plain data counts only where a test has made that
        object itself, by calling its class; and never that it equals them."""
        made = remote._remote_made
        if arguments and number_of(arguments[0]) is None:
            if name in COMPARING or (name in COUNTING and not made):
                return NotImplemented
            if name == "__contains__" and not made:
                return any(item is arguments[0] or item == arguments[0] for item in remote)
        if name == "__next__" and not arguments:
            return self._next_item(remote)
        result = super().special(remote, name, arguments, named)
        calls_class = name == "__call__" and remote._remote_sort == CLASS
        return mark_made(result) if made and (calls_class or name in COUNTING) else result

    def copied(self, remote: StandIn, how: str) -> object:
        """A copy of what a test has made is a test's own, too."""
        result = super().copied(remote, how)
        return mark_made(result) if remote._remote_made else result

    def pickled(self, remote: StandIn) -> object:
        """Read again, it is a copy."""
        return _copy_of, (remote._remote_number,)

    def _next_item(self, remote: StandIn) -> object:
        """The next item of the answer's iterator. A long one that nothing else is asked for
        meanwhile comes many items at once: a message for each would be most of the time."""
        supply = self._items.setdefault(number_of(remote), _Items())
        if supply.ahead:
            return supply.ahead.popleft()
        alone = supply.asked == self._asked
        supply.taken = supply.taken + 1 if alone else 0
        if supply.taken < _ALONE:
            try:
                return super().special(remote, "__next__", (), {})
            finally:
                supply.asked = self._asked
        supply.at_once = min(2 * supply.at_once, _MOST_AT_ONCE)
        items = self.ask("several", remote, supply.at_once)
        supply.asked = self._asked
        if not items:
            raise StopIteration
        supply.ahead.extend(items)
        return supply.ahead.popleft()

    def serve(self, operation: str, arguments: list) -> object:
        """Call what a test has handed over, and take items of it; of objects of the tests' own
        classes also public attributes and methods. Nothing leads from there to a test's source."""
        value, name, *rest = arguments
        if not any(value is own for own in self._own.values()) or not isinstance(name, str):
            raise PermissionError("not handed over")
        is_open = type(value) in _OPEN or type(value).__module__ == TESTS
        if operation == "special":
            callable_here = name == "__call__" and not isinstance(value, types.ModuleType)
            if not (is_open or callable_here or name in ("__iter__", "__next__")):
                raise PermissionError(f"{name} is the test's")
            if name not in _SAFE:
                raise PermissionError(f"{name} is the test's")
            given, named = rest
            return getattr(type(value), name)(value, *given, **dict(named))
        if not is_open or name.startswith("_"):
            raise PermissionError(f"{name} is the test's")
        if operation == "get":
            return getattr(value, name)
        if operation == "set":
            return setattr(value, name, *rest)
        raise PermissionError(f"{operation} is the test's")


class _Items:
    """How an iterator of the answer's has been read."""

    def __init__(self) -> None:
        self.ahead: collections.deque = collections.deque()
        self.asked, self.taken, self.at_once = -1, 0, 16


def _copy_of(number: int) -> object:
    judge = _judges[0]
    return judge.copied(judge.resolve("object", [number, "", [], []]), "deep copy")


class Names(dict):
    """The names that tests see: their own, then Python's, then the answer's. A name of Python's is
    the answer's only where `wanted` has it."""

    def __init__(self, talk: JudgeTalk, wanted: frozenset[str]):
        super().__init__(__name__=TESTS, __builtins__=builtins)
        self._talk, self._wanted = talk, wanted

    def __missing__(self, name: str) -> object:
        if hasattr(builtins, name) and name not in self._wanted:
            raise KeyError(name)
        named = self._talk.ask("name", name)
        if not (isinstance(named, tuple) and len(named) == 1):
            raise KeyError(name)
        # By its name a class is one for the test, too: what is to be a function stays one for it.
        return mark_made(named[0]) if name[:1].isupper() else named[0]


def wanted_of_python(tests: list[str], entry_point: str) -> frozenset[str]:
    """The names of Python's that the tests mean as the answer's: the entry point, or where none is
    given and the tests use no name that Python lacks, all."""
    if entry_point:
        return frozenset([entry_point])
    import ast  # most tasks name their entry point, and it takes longer than their tests

    used, own = set(), set()
    for test in tests:
        for node in ast.walk(ast.parse(test)):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else own).add(node.id)
    if used - own - set(dir(builtins)):
        return frozenset()
    return frozenset(used - own)


def judge(talk: JudgeTalk, code: str, tests: list[str], entry_point: str) -> tuple[str, str]:
    """(how it ended, where and why): the answer is run, then each test until one fails. Raises
    Ended where the answer's process ends before."""
    try:
        failed = talk.ask("load", code)
        if failed is not None:
            outcome, detail = failed
            if outcome not in _FAILURES:
                raise Broken("no way to end")
            return outcome, str(detail)[:DETAIL_CHARACTERS]
        names = Names(talk, wanted_of_python(tests, entry_point))
        sys.modules[TESTS] = types.ModuleType(TESTS)
        sys.modules[ANSWER_MODULE] = _Answer(talk)
    except Exception as error:  # the tests' text, and what the answer's side sends, may be anything
        return failure("failed to run", error, "")
    for number, test in enumerate(tests, 1):
        try:
            execute(test, f"test {number}", names)
            if talk.over:
                raise talk.over
        except Ended:
            raise
        except BaseException as error:  # tests and answers may raise anything, SystemExit included
            return failure("failed a test", error, _where(error))
    return "passed", ""


class _Answer(types.ModuleType):
    """What a test imports as the answer."""

    def __init__(self, talk: JudgeTalk):
        super().__init__(ANSWER_MODULE)
        self._talk = talk

    def __getattr__(self, name: str) -> object:
        named = () if name.startswith("__") else self._talk.ask("name", name)
        if not named:
            raise AttributeError(name)
        return named[0]


def _where(error: BaseException) -> str:
    """The line of the answer that raised it, or else of the test."""
    in_answer = getattr(error, "_remote_where", "")
    if in_answer:
        return in_answer
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: "
    lines = traceback.extract_tb(error.__traceback__)
    return next((f"{f.filename}:{f.lineno}: " for f in reversed(lines)
                 if f.filename.startswith("test ")), "")  # fmt: skip


_SAFE = frozenset(
    f"__{name}__"
    for name in "call iter next len getitem setitem contains eq ne lt le gt ge hash "
    "bool str repr add radd sub rsub mul rmul int float index enter exit".split()
)
