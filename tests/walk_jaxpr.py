"""What a traced computation makes and multiplies, inside loops and rematerialised parts too."""

import math

import jax


def array_shapes(jaxpr) -> list[tuple[int, ...]]:
    """The shape of every input, constant and intermediate of a jaxpr and of its inner jaxprs."""
    shapes = [v.aval.shape for v in (*jaxpr.invars, *jaxpr.constvars)]
    for equation in jaxpr.eqns:
        shapes += [v.aval.shape for v in equation.outvars]
        for inner in _inner_jaxprs(equation):
            shapes += array_shapes(inner)
    return shapes


def loop_bodies(jaxpr) -> list:
    """The body of every while loop, outer ones first."""
    bodies = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            bodies.append(equation.params["body_jaxpr"].jaxpr)
        for inner in _inner_jaxprs(equation):
            bodies += loop_bodies(inner)
    return bodies


def rows_through(jaxpr, matrix: tuple[int, int]) -> int:
    """How many rows a traced computation multiplies by matrices [in, out] of this shape; a scan
    counts as often as it runs. Products with the transposed matrix, which the gradient of the
    rows takes, are not counted."""
    found = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            rows, right = (v.aval.shape for v in equation.invars)
            (_, contracted), _ = equation.params["dimension_numbers"]
            if right == matrix and contracted == (0,):
                found += math.prod(rows) // matrix[0]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        found += times * sum(rows_through(inner, matrix) for inner in _inner_jaxprs(equation))
    return found


def _inner_jaxprs(equation) -> list:
    """The jaxprs that an equation holds."""
    held = jax.tree.leaves(equation.params, is_leaf=_is_jaxpr)
    return [getattr(inner, "jaxpr", inner) for inner in held if _is_jaxpr(inner)]


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")
