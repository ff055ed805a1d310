"""The profile that benchmarks/breakdown.py prints: times are shared out whole, operations go to
the function that asked for them."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from compilation import USERS_FUSIONS


@pytest.fixture
def traces(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    return importlib.import_module("traces")


def test_operations_that_run_at_once_share_the_time(traces):
    runs = (("a", 0.0, 4.0), ("b", 1.0, 3.0), ("a", 5.0, 6.0))
    spans = [traces.Span(*run) for run in runs]
    expected = {"A": 4.0, "B": 1.0, traces.NOTHING: 2.0}
    assert traces.shares(spans, 7.0, str.upper) == pytest.approx(expected)


def inner(x, weights):
    return jnp.tanh(x @ weights)


def outer(x, weights):
    return jnp.exp(inner(x, weights) + 1).sum()


def test_an_operation_belongs_to_the_innermost_known_function(traces):
    matrix = jnp.ones((8, 8))
    lowered = jax.jit(jax.grad(outer)).lower(matrix, matrix)
    program = lowered.compile(compiler_options=USERS_FUSIONS)
    found = traces.origins(program.as_text())
    parts = {"inner part": {"inner"}, "outer part": {"outer"}}
    directions = {part: set() for part in (*parts, traces.OTHER)}
    for origin in found.values():
        directions[traces.part_of(origin, parts)].add(origin.direction)
    assert directions["inner part"] == {"forward", "backward"}
    assert "forward" in directions["outer part"]
    assert traces.part_of(None, parts) == traces.OTHER
