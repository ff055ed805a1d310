"""Random batches for the training step, and a comparison of trees leaf by leaf."""

import jax
import jax.numpy as jnp
import numpy as np

from emergent_alignment.data.batches import ROLES, Batch


def random_batch(rows=8, prompt=7, branches=3, branch=6, seed=0, vocabulary=96) -> Batch:
    """Uneven lengths, some rows without a pair."""
    draw = np.random.default_rng(seed)
    batch = Batch(
        draw.integers(0, vocabulary, (rows, prompt)).astype(np.int32),
        draw.integers(1, prompt + 1, rows).astype(np.int32),
        draw.integers(0, vocabulary, (rows, branches, branch)).astype(np.int32),
        draw.integers(1, branch + 1, (rows, branches)).astype(np.int32),
        draw.random(rows) < 0.6,
        None,
        ROLES["task" if branches == 1 else "separate"],
    )
    return jax.tree.map(jnp.asarray, batch)


def assert_trees_close(ours, theirs, tolerance):
    for (path, left), right in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        np.testing.assert_allclose(
            left, right, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path)
        )
