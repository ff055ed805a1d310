"""Here programs are compiled for the real model (compilation.py), by processes of their own; what
one process has compiled, the next ones read (from JAX_COMPILATION_CACHE_DIR, where it is set)."""

import os

import compilation
import pytest

compilation.compile_quickly()


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        yield
        return
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # one for all workers
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield
