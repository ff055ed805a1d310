"""Commands as processes of their own, forked off this one, which has imported all that they need
and never computes: five seconds of imports are spared each trial."""

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
from compilation import CHEAPLY

from emergent_alignment.cli.main import main

_NEEDED = (
    "experiments.seeds experiments.arm_evaluation self_align.pipeline "
    "self_align.instructions.stage self_align.answers.stage self_align.engraving "
    "self_align.reinforcement.stage applications.finetuning applications.adversarial.training "
    "applications.pretraining.training runs.workdir models.export evaluation.choices.evaluate "
    "evaluation.misalignment.evaluate evaluation.coding.evaluate evaluation.attacks "
    "reports.results_page reports.self_align_page reports.experiment_page"
).split()
SECONDS = 1800  # nothing takes so long, on a busy machine either; what does hangs


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), what it said, how long it took;
    `hung` where it had to be killed."""

    code: int
    said: str
    seconds: float
    hung: bool = False

    @property
    def is_one_line(self) -> bool:
        """A user's mistake, or a full disk, as the command line says it."""
        lines = [line for line in self.said.splitlines() if line.startswith("emergent-alignment:")]
        return self.code == 2 and len(lines) == 1 and "Traceback" not in self.said

    def last_words(self) -> str:
        """The last line that it said."""
        return (self.said.strip().splitlines() or [""])[-1][-300:]


def prepare(folder: Path) -> None:
    """Import what commands need; what they compile, and what they keep for later runs, lies in
    `folder`."""
    compiled = str(folder.absolute() / "compiled")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", compiled)  # else a command chooses its own
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_platforms", "cpu")
    os.environ["XLA_FLAGS"] = CHEAPLY
    for name in _NEEDED:
        importlib.import_module(f"emergent_alignment.{name}")


def started(
    words: list[str], said: Path, *, before: Callable[[], None] = lambda: None, run=main
) -> int:
    """The number of a process that runs `before` and then a command."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        with said.open("wb") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        before()
        code = run(words)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code or 0)
    raise AssertionError


def ended(process: int, said: Path, *, kill_after: float | None = None) -> Ended:
    """Wait for a process, and kill it after so many seconds where it is told."""
    began = time.monotonic()
    deadline, killed = began + SECONDS, False
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        seconds = time.monotonic() - began
        if found:
            text = said.read_text("utf-8", errors="replace")
            return Ended(os.waitstatus_to_exitcode(status), text, seconds, seconds >= SECONDS)
        due = kill_after is not None and seconds >= kill_after
        if (due or time.monotonic() > deadline) and not killed:
            os.kill(process, signal.SIGKILL)
            killed = True
        time.sleep(0.002)


def finished(words: list[str], said: Path, **how) -> Ended:
    """A command from its start to its end."""
    return ended(started(words, said, **how), said)


def _leave(code: int) -> None:
    """As an interpreter ends, threads and all, but for what the forking one has open."""
    try:
        threading._shutdown()
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
