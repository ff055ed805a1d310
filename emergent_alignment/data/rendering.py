"""A conversation through a model's own chat template, which is a stranger's program: it may refuse,
fail, never end or fill the memory, and each of these is one line.
"""

import ctypes
import json
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from emergent_alignment.data.messages import Message
from emergent_alignment.errors import UserError
from emergent_alignment.models.tokenizer import chat_template_of

SECONDS = 10.0
GROWTH_BYTES = 2**30  # what the process may grow by while a template runs for longer than a blink
_BLINK = 0.05
_LENGTHENS = 16  # a rendering is at most so many times as long as what it is made of
_PAGE = resource.getpagesize()
_STATUS = Path("/proc/self/statm")


def render(tokenizer: Any, messages: list[Message], **options: Any) -> str:
    """The text that the tokenizer's chat template makes of a conversation; `options` are those of
    `apply_chat_template`, and the template's own.

    Raises UserError where the template refuses the conversation or fails on it, runs for more than
    SECONDS, or makes more of it than anybody could read.
    """
    try:
        with _watched():
            template = chat_template_of(tokenizer)
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, chat_template=template, **options
            )
    except TemplateError as error:
        raise _refused(" ".join(str(error).split()), messages) from None
    except _TooMuch:
        reason = f"it does not end within {SECONDS:g} seconds, or fills the memory"
        raise _refused(reason, messages) from None
    except (RecursionError, MemoryError) as error:
        raise _refused(f"it has no end: {type(error).__name__}", messages) from None
    except Exception as error:  # whatever a stranger's program may raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise _refused(reason, messages) from error
    said = sum(len(str(message.get("content"))) for message in messages)
    if len(text) > 2**20 + _LENGTHENS * said:
        raise _refused(f"it makes {len(text)} letters of {said}", messages)
    return text


def check_shown(messages: list[Message], text: str) -> None:
    """Raise UserError where the rendering of a conversation shows not all that others than the
    assistant say in it; of what that has said, templates leave its reasoning out."""
    shown = letters(text)
    for message in messages:
        said, role = message["content"], message["role"]
        if role != "assistant" and not is_said(said, shown):
            raise UserError(
                f"the chat template leaves out a turn of the role {role}, {said[:60]!r}; put it "
                "into another turn, or give another template in config.model.chat_template"
            )


def is_said(said: str, shown: str) -> bool:
    """Whether the `letters` of a text say this, as it is or as JSON, which a tool's is shown as."""
    forms = (said, json.dumps(said, ensure_ascii=False)[1:-1])
    return any(letters(form) in shown for form in forms)


def letters(text: str) -> str:
    """A text without its blanks, which templates trim and add."""
    return "".join(text.split())


def _refused(reason: str, messages: list[Message]) -> UserError:
    last = messages[-1]["content"][:60] if messages else ""
    return UserError(
        f"the chat template refuses a conversation ({reason}); its last turn is {last!r}"
    )


class _TooMuch(BaseException):
    """Thrown into a thread whose template takes too long, or too much. Not an Exception: no
    template, and nothing that runs it, may catch it."""


class _Watch:
    """One rendering, seen by the watcher."""

    def __init__(self):
        self.thread = threading.get_ident()
        self.started = time.monotonic()
        self.memory: int | None = None  # of the process, when the watcher first saw it
        self.turn = threading.Lock()
        self.over = self.thrown = False

    def stop_if_too_much(self) -> None:
        """Throw into the rendering's thread where it is beyond a limit."""
        if self.memory is None:
            self.memory = _memory()
        too_long = time.monotonic() - self.started > SECONDS
        if not too_long and _memory() - self.memory < GROWTH_BYTES:
            return
        _watches.pop(self, None)
        with self.turn:
            if not self.over:
                self.thrown = True
                _throw(self.thread, _TooMuch)


_watches: dict[_Watch, None] = {}
_awake = threading.Event()
_start = threading.Lock()
_watcher: threading.Thread | None = None


@contextmanager
def _watched() -> Iterator[None]:
    """What is done within is stopped with _TooMuch at the limits. It costs microseconds: one
    thread watches all."""
    watch = _Watch()
    _watches[watch] = None
    _wake()
    try:
        yield
    except _TooMuch:
        watch.thrown = False
        raise
    finally:
        _watches.pop(watch, None)
        with watch.turn:
            watch.over = True
        if watch.thrown:
            _let_arrive()


def _wake() -> None:
    global _watcher
    if _watcher is None or not _watcher.is_alive():  # none yet, or a fork left it behind
        with _start:
            _watcher = threading.Thread(target=_watch_all, name="template watcher", daemon=True)
            _watcher.start()
    if not _awake.is_set():
        _awake.set()


def _watch_all() -> None:
    while True:
        _awake.wait()
        time.sleep(_BLINK)
        if not _watches:
            _awake.clear()
        for watch in list(_watches):
            watch.stop_if_too_much()


def _throw(thread: int, what: type[BaseException]) -> None:
    """Raise in another thread, at its next step. It cannot be taken back: Python would then look
    for it at every step of every thread, for good."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(what))


def _let_arrive() -> None:
    """What was thrown as the rendering ended arrives here, and not in what comes after it."""
    with suppress(_TooMuch):
        for _ in range(1000):
            pass


def _memory() -> int:
    """Bytes that the process holds; 0 where the system does not tell, and time alone counts."""
    try:
        return int(_STATUS.read_text().split()[1]) * _PAGE
    except OSError:
        return 0
