"""Two programs have one digest where they compute the same, and only there."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture
def digest(monkeypatch):
    """The digest of a function as it is traced, its text printed as XLA dumps it."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    program_digest = importlib.import_module("program_digest").program_digest

    def of(function) -> str:
        traced = jax.jit(function).lower(jnp.zeros((3,)), jnp.ones((3,))).compiler_ir("hlo")
        options = importlib.import_module(type(traced).__module__).HloPrintOptions()
        return program_digest(traced.as_hlo_module().to_string(options))

    return of


def sum_and_product(x, y):
    def body(_, carried):
        total, product = carried
        return total + x * y, product * jnp.sin(total)

    return jax.lax.fori_loop(0, 5, body, (jnp.zeros((3,)), jnp.zeros((3,))))


def product_and_sum(x, y):
    """The same, carried and written in another order, with a function of its own."""

    @jax.jit
    def grown(product, total):
        return product * jnp.sin(total)

    def body(_, carried):
        product, total = carried
        product = grown(product, total)
        return product, total + x * y

    product, total = jax.lax.fori_loop(0, 5, body, (jnp.zeros((3,)), jnp.zeros((3,))))
    return total, product


def test_order_and_names_do_not_count(digest):
    assert digest(sum_and_product) == digest(product_and_sum)


def swapped(x, y):
    return sum_and_product(x, y)[::-1]


def longer(x, y):
    def body(_, carried):
        total, product = carried
        return total + x * y, product * jnp.sin(total)

    return jax.lax.fori_loop(0, 6, body, (jnp.zeros((3,)), jnp.zeros((3,))))


def other_value_first(x, y):
    def body(_, carried):
        total, product = carried
        return total + x * y, product * jnp.sin(product)

    return jax.lax.fori_loop(0, 5, body, (jnp.zeros((3,)), jnp.zeros((3,))))


@pytest.mark.parametrize("other", [swapped, longer, other_value_first])
def test_what_is_computed_counts(digest, other):
    assert digest(sum_and_product) != digest(other)
