"""How the tests compile: cheaply, because nearly all of their time would be XLA's, for programs of
tiny models that run for milliseconds.

Without LLVM's optimisation, and with XLA's older way to emit fusions, tests/training/test_step.py's
accumulation takes 11 CPU seconds and not 38; with one module for LLVM a program, and not up to 32,
what is left of XLA's share is a fifth less. A program's text is then the users' but for what is
fused into what; a test that reads it compiles with USERS_FUSIONS, which makes it theirs to the
letter.

The real model runs for longer than it is compiled, and without LLVM's optimisation for twice as
long. tests/slow and the notebooks compile it QUICKLY: with LLVM's first level, XLA's share is half,
and the programs are as fast. As users do compile tests/parity, the test of peak memory, and what
.ci/run tries of the quickstart.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

# jaxlib 0.12 has no other way, and ends the process at a flag that it does not know.
_OTHER_FUSIONS = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 12)
CHEAPLY = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1" + (
    " --xla_cpu_use_fusion_emitters=false" if _OTHER_FUSIONS else ""
)
QUICKLY = CHEAPLY.replace("optimization_level=0", "optimization_level=1")
USERS_FUSIONS = {"xla_cpu_use_fusion_emitters": True} if _OTHER_FUSIONS else {}
# Processes that pytest-xdist starts find here what was set before ours.
_users_flags = os.environ.setdefault("USERS_XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))


def compile_cheaply() -> None:
    """To be called before JAX looks for devices; the user's own flags come last and win."""
    os.environ["XLA_FLAGS"] = f"{CHEAPLY} {_users_flags}".strip()


def compile_quickly() -> None:
    """Likewise; processes that a test starts inherit it."""
    os.environ["XLA_FLAGS"] = f"{QUICKLY} {_users_flags}".strip()


def compile_as_users_do() -> None:
    """Likewise."""
    os.environ["XLA_FLAGS"] = _users_flags


def as_users_do() -> dict[str, str]:
    """The environment of a process that compiles as users do."""
    return os.environ | {"XLA_FLAGS": _users_flags}


@contextmanager
def compiling_once(folder: Path) -> Iterator[None]:
    """Processes started meanwhile compile cheaply; what one has compiled, the others read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.setenv("XLA_FLAGS", CHEAPLY)
        yield
