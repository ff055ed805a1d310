"""The answer's side of the sandbox: runs the code that a model wrote, and does what the judge asks
of it. Whatever stands in this process is the answer's: no test and no verdict does.

It runs inside the sandbox and imports the standard library alone.
"""

import importlib
import io
import itertools
import linecache
import os
import sys
import traceback
import types

from emergent_alignment.evaluation.coding.conversation import Broken, Ended, Talk

ANSWER_MODULE = "answer"
DETAIL_CHARACTERS = 500
_FILE = f"{ANSWER_MODULE}.py"


class AnswerTalk(Talk):
    """What the judge may ask of an answer: all that Python can."""

    def __init__(self, reading: int, writing: int):
        super().__init__(1, reading, writing)
        self._module = types.ModuleType(ANSWER_MODULE)
        self._collected: list[tuple[object, io.StringIO]] = []
        self._process = os.getpid()
        self._doing = {
            "load": self._load,
            "name": self._name,
            "special": lambda value, name, given, named: getattr(type(value), name)(
                value, *given, **dict(named)
            ),
            "get": getattr,
            "set": setattr,
            "delete": delattr,
            "is a": isinstance,
            "is under": issubclass,
            "copy": lambda value: _module("copy").copy(value),
            "deep copy": lambda value: _module("copy").deepcopy(value),
            "names": lambda value: list(dir(value)),
            "await": lambda value: _module("asyncio").run(value),
            "several": lambda value, count: [*itertools.islice(value, count)],
            "collect": self._collect,
            "collected": self._output,
        }

    def attend(self) -> None:
        """Do what the judge asks until it is gone."""
        try:
            while True:
                head, *parts = self.receive()
                if head != "do":
                    return
                self.answer(parts)
        except (Ended, Broken):
            return

    def serve(self, operation: str, arguments: list) -> object:
        """Done here, in the open: the answer may have changed any of it."""
        return self._doing[operation](*arguments)

    def send(self, head: str, *parts: object) -> None:
        """What the answer has printed is printed before the judge goes on; a copy of the process
        says nothing."""
        if os.getpid() != self._process:
            os._exit(0)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # it is the answer's
                continue
        super().send(head, *parts)

    def where(self, error: BaseException) -> str:
        """The innermost line of the answer that the error has gone through."""
        if isinstance(error, SyntaxError):
            return f"{error.filename}:{error.lineno}: "
        lines = traceback.extract_tb(error.__traceback__)
        places = (f"{f.filename}:{f.lineno}: " for f in reversed(lines) if f.filename == _FILE)
        return next(places, super().where(error))

    def _load(self, code: str) -> tuple[str, str] | None:
        """Run the answer as a module: None, or (how it failed, where and why)."""
        sys.modules[ANSWER_MODULE] = self._module
        try:
            execute(code, _FILE, self._module.__dict__)
        except BaseException as error:  # an answer may raise anything, SystemExit included
            return failure("failed to run", error, self.where(error))
        return None

    def _name(self, name: str) -> object:
        """A name of the answer's, in a tuple; () where it has none."""
        names = vars(self._module)
        return (names[name],) if name in names else ()

    def _collect(self) -> None:
        self._collected.append((sys.stdout, io.StringIO()))
        sys.stdout = self._collected[-1][1]

    def _output(self) -> str:
        sys.stdout, text = self._collected.pop()
        return text.getvalue()


def _module(name: str) -> types.ModuleType:
    """Imported when it is needed: few answers do, and some take longer than most answers run."""
    return importlib.import_module(name)


def execute(source: str, name: str, names: dict) -> None:
    """Run it, so that a traceback shows its lines."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), names)


def failure(outcome: str, error: BaseException, where: str) -> tuple[str, str]:
    """(how it ended, where and why)"""
    if isinstance(error, MemoryError):
        outcome = "out of memory"
    try:
        said = f"{type(error).__name__}: {error}"
    except BaseException:  # an answer's exception may have a __str__ that raises
        said = type(error).__name__
    return outcome, (where + said)[:DETAIL_CHARACTERS]
