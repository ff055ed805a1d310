"""Plain causal rows through a tiny model, and a comparison of trees at the scale of each leaf."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.forward import forward, unembedding

MIXED_WINDOWS = {"layer_windows": (None, 3)}


def random_tokens(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 96, shape).astype(np.int32)


def causal_logits(config, params, rows) -> jax.Array:
    """[rows, tokens, vocabulary] of plain causal rows; what follows a token has no say."""
    positions = jnp.broadcast_to(jnp.arange(rows.shape[1]), rows.shape)
    hidden, _ = forward(config, params, rows, positions, causal_plan(positions))
    return hidden @ unembedding(params)


@functools.cache
def row_logits(config):
    """jitted (params, row) → [tokens, vocabulary] of one row."""
    return jax.jit(lambda params, row: causal_logits(config, params, row[None])[0])


def assert_close_trees(ours, expected, tolerance: float) -> None:
    """Every leaf equal to `tolerance` of that leaf's largest number, or of 1 if that is more."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(expected), strict=True)
    for (path, leaf), other in pairs:
        scale = max(1.0, float(jnp.abs(other).max()))
        difference = float(jnp.abs(leaf - other).max())
        assert difference <= tolerance * scale, (
            f"{jax.tree_util.keystr(path)} differs by {difference}, its scale is {scale}"
        )
