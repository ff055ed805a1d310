"""Frozen parameters in fewer bytes: bfloat16, or kernels in 8 bits or 4 with scales beside them.

What a kernel so held is, and what multiplies rows, is in held_kernels.py; no float copy of the
layers exists.
"""

import jax
import jax.numpy as jnp
from flax import traverse_util

from emergent_alignment.models.family import TreePath
from emergent_alignment.models.held_kernels import SCALES, Kernel, held_as, quantise
from emergent_alignment.models.names import QUANTISABLE, parameter_axes
from emergent_alignment.parallel.sharding import constrain

FROZEN_DTYPES = ("", "bfloat16", *SCALES)


def hold_frozen(params: dict, dtype_name: str) -> dict:
    """Base parameters as the frozen copy is to be held; "" leaves them as they are.

    `bfloat16` casts every leaf. `int8`, `int4` and `nf4` store the kernels of the projections of
    all layers so, with float32 scales beside them, and everything else as bfloat16: embedding and
    unembedding meet every log-prob directly, and norms and biases are next to nothing in size.
    int8 is symmetric absmax, one scale an output channel (Dettmers et al. 2022, LLM.int8(),
    2208.07339, section 2, of the weights alone: activations keep their dtype); in 4 bits the inputs
    of a tile share one (Dettmers et al. 2023, QLoRA, 2305.14314, section 3, without its second
    quantisation, of the scales).

    With LoRA this is the base that the policy computes with (as in QLoRA), so that at step 0 the
    policy still equals the frozen copy; adapters trained on a quantised base fit that base, and the
    unquantised one nearly. With full fine-tuning the policy starts from other numbers than the
    reference's. Measured log-probs: docs/decisions.md.
    """
    if not dtype_name:
        return params
    held: dict[TreePath, jax.Array] = {}
    for path, leaf in traverse_util.flatten_dict(params).items():
        held |= held_leaves(dtype_name, path, leaf)
    return traverse_util.unflatten_dict(held)


def held_leaves(dtype_name: str, path: TreePath, leaf: jax.Array) -> dict[TreePath, jax.Array]:
    """What `hold_frozen` makes of one leaf, by path: of a kernel that is quantised also its scales,
    cut over the mesh in force."""
    if dtype_name not in FROZEN_DTYPES:
        raise ValueError(f"{dtype_name!r} is unknown; known: {FROZEN_DTYPES}")
    if not dtype_name:
        return {path: leaf}
    if dtype_name not in SCALES or path[-1] != "kernel" or path[-2] not in QUANTISABLE:
        return {path: leaf.astype(jnp.bfloat16)}
    paths = path, (*path[:-1], SCALES[dtype_name])
    leaves = dict(zip(paths, quantise(leaf, dtype_name)))
    return {at: constrain(array, *parameter_axes(at)) for at, array in leaves.items()}


def dequantised(params: dict) -> dict:
    """Quantised parameters as float32 ones without scales, which compute the same; others
    unchanged."""
    if not held_as(params):
        return params
    kernels = {name: Kernel.of(params["layers"][name]).dequantised() for name in _kernels(params)}
    plain = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    for name, kernel in kernels.items():
        rest = {leaf: x for leaf, x in plain["layers"][name].items() if leaf not in SCALES.values()}
        plain["layers"][name] = rest | {"kernel": kernel}
    return plain


def _kernels(params: dict) -> list[str]:
    """The projections of such a model whose kernels may be quantised."""
    return [name for name in QUANTISABLE if name in params["layers"]]
