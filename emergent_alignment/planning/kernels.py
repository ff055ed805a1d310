"""FLOPs of kernels that a compiled program's text does not show: splash attention's, and those
that a TPU's compiler makes of a grouped matmul.

Of attention they are computed from the operands' shapes and the layout: the kernels visit the
blocks of the tokens × tokens square that hold anything, and each visited block whole.
"""

import math

from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.planning.hlo import KernelFlops
from emergent_alignment.planning.hlo_text import Array

# Matmuls of a visited block: logits and weighted values; logits, weights' and queries' gradients;
# logits, values', weights' and keys' gradients.
_MATMULS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


def splash_flops(layout: PrefixLayout) -> KernelFlops:
    """kernel_flops(name, operands) for programs that attend in this layout. It raises ValueError
    for a kernel of another name."""
    share = visited_share(layout)

    def kernel_flops(name: str, operands: tuple[Array, ...]) -> float:
        matmuls = next((n for start, n in _MATMULS.items() if name.startswith(start)), None)
        if matmuls is None:
            raise ValueError(f"the FLOPs of the kernel {name} are not known")
        # What comes before the queries [(batch,) heads, tokens, head_dim] are masks of integers.
        query = next(a for a in operands if len(a.shape) >= 3 and a.dtype in ("bf16", "f32"))
        *rows, tokens, head_dim = query.shape
        return matmuls * 2.0 * math.prod(rows) * tokens * tokens * share * head_dim

    return kernel_flops


def with_grouped(others: KernelFlops, expert_parts: int) -> KernelFlops:
    """kernel_flops(name, operands) that knows grouped matmuls, too: of rows [rows, in] and kernels
    [experts, in, out] the rows that are in a group, which are one in `expert_parts` where experts
    are loaded alike."""

    def kernel_flops(name: str, operands: tuple[Array, ...]) -> float:
        if not name.startswith("ragged-dot"):
            return others(name, operands)
        if name.startswith("ragged-dot-metadata"):
            return 0.0
        # What comes before them are the groups, of integers.
        rows, kernels = (a for a in operands if a.dtype in ("bf16", "f32"))
        return 2.0 * rows.shape[0] * math.prod(kernels.shape[1:]) / expert_parts

    return kernel_flops


def visited_share(layout: PrefixLayout) -> float:
    """The share of the square's blocks that hold anything."""
    from emergent_alignment.models.attention_tpu import PrefixMask, block_sizes

    mask = PrefixMask(layout)
    size = mask.shape[0]
    block = block_sizes(size).block_q
    places = [slice(start, start + block) for start in range(0, size, block)]
    visited = sum(bool(mask[rows, columns].any()) for rows in places for columns in places)
    return visited / len(places) ** 2
