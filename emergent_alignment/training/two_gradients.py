"""The gradients of the task and of the alignment, each for itself: how they lie to each other, and
what is made of both.

Surgery: where the two pull against each other, the task's gradient loses its component along the
alignment's (Yu et al. 2020, 2001.06782, eq. 1, one way; as SafeGrad, 2508.07172). Moments of their
own: two optimizers, so that the few pairs' gradient is not drowned in the task's second moment.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

_LEAST = 1e-30  # a squared norm below this is none


def inner_product(first: Any, second: Any) -> Float[Array, ""]:
    """Σ over all leaves, in float32."""
    products = jax.tree.map(
        lambda a, b: (a.astype(jnp.float32) * b.astype(jnp.float32)).sum(), first, second
    )
    return jax.tree.reduce(jnp.add, products)


def without_conflict(task: Any, alignment: Any) -> Any:
    """The task's gradient, less its component along the alignment's where their cosine is
    negative."""
    product, square = inner_product(task, alignment), inner_product(alignment, alignment)
    share = jnp.minimum(product, 0.0) / jnp.maximum(square, _LEAST)
    return jax.tree.map(lambda a, b: a - (share * b).astype(a.dtype), task, alignment)


def strengths(task: Any, alignment: Any) -> dict[str, Float[Array, ""]]:
    """gradient_cosine (0 where one is zero), and both norms."""
    product = inner_product(task, alignment)
    squares = [inner_product(tree, tree) for tree in (task, alignment)]
    return {
        "gradient_cosine": product / jnp.sqrt(jnp.maximum(squares[0] * squares[1], _LEAST)),
        "gradient_norm_task": jnp.sqrt(squares[0]),
        "gradient_norm_alignment": jnp.sqrt(squares[1]),
    }


def moments_apart(
    task: optax.GradientTransformation, alignment: optax.GradientTransformation
) -> optax.GradientTransformation:
    """An optimizer over (gradient of the task, gradient of the alignment): their updates add up."""

    def init(params):
        return {"task": task.init(params), "alignment": alignment.init(params)}

    def update(gradients, state, params=None):
        moved, of_task = task.update(gradients[0], state["task"], params)
        more, of_alignment = alignment.update(gradients[1], state["alignment"], params)
        updates = jax.tree.map(jnp.add, moved, more)
        return updates, {"task": of_task, "alignment": of_alignment}

    return optax.GradientTransformation(init, update)
