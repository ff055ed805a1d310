"""Every array that a traced computation makes, inside loops and rematerialised parts too."""

import jax


def array_shapes(jaxpr) -> list[tuple[int, ...]]:
    """The shape of every input, constant and intermediate of a jaxpr and of its inner jaxprs."""
    shapes = [v.aval.shape for v in (*jaxpr.invars, *jaxpr.constvars)]
    for equation in jaxpr.eqns:
        shapes += [v.aval.shape for v in equation.outvars]
        for inner in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                shapes += array_shapes(getattr(inner, "jaxpr", inner))
    return shapes


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")
