"""The FLOPs that a step cannot do without: what MFU is measured against.

A multiply-add counts as two. Matmuls alone are counted, over all positions of the compiled shape
(padding included), nothing twice: what rematerialisation computes again is not in it.
"""

from dataclasses import dataclass

from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.models.names import active_sizes


@dataclass(frozen=True)
class ForwardFlops:
    """One forward pass: kernels (all projections, of experts the chosen ones), adapters (LoRA's
    products), attention (logits and weighted values), vocabulary (hidden states to logits)."""

    kernels: float
    adapters: float
    attention: float
    vocabulary: float


def step_flops(
    config: ModelConfig,
    layout: PrefixLayout,
    rows: int,
    lora: LoraConfig | None,
    *,
    with_reference: bool,
) -> float:
    """Ideal FLOPs of one training step over `rows` prompts with their branches, on all devices.

    Trained parameters cost three times their forward pass: themselves, the gradient of their
    input and their own (6N a token; Kaplan et al. 2020, 2001.08361, table 1). Where the base is
    frozen its kernels and the vocabulary have no gradient of their own: 4N, and 6N of the
    adapters. Attention has no parameters and two gradients for each of its two products: three
    times, always. Where the batch brings no reference log-probs (`with_reference`), the frozen
    copy's forward pass, of the base alone, comes on top.
    """
    forward = forward_flops(config, layout, rows, lora)
    frozen = 3 if lora is None else 2
    trained = frozen * (forward.kernels + forward.vocabulary)
    trained += 3 * (forward.adapters + forward.attention)
    if with_reference:
        return trained
    return trained + forward.kernels + forward.vocabulary + forward.attention


def forward_flops(
    config: ModelConfig, layout: PrefixLayout, rows: int, lora: LoraConfig | None = None
) -> ForwardFlops:
    """One forward pass over `rows` prompts with their branches, each prompt computed once; only
    branch tokens meet the vocabulary (each is predicted once)."""
    branch_tokens = layout.branches * layout.branch
    tokens = layout.prompt + branch_tokens
    sizes, adapters = active_sizes(config), 0
    if lora is not None:
        met = [sizes[name] for name in lora.targets if name in sizes]
        adapters = sum(lora.rank * times * (inputs + outputs) for times, inputs, outputs in met)
    seen = visible_pairs(layout)
    return ForwardFlops(
        kernels=2.0 * _kernel_size(config) * config.num_layers * tokens * rows,
        adapters=2.0 * adapters * config.num_layers * tokens * rows,
        attention=attention_flops(config, seen) * rows,
        vocabulary=2.0 * config.hidden_size * config.vocab_size * branch_tokens * rows,
    )


def _kernel_size(config: ModelConfig) -> int:
    """Numbers in the kernels that a token meets in a layer."""
    return sum(times * inputs * outputs for times, inputs, outputs in active_sizes(config).values())


def attention_flops(config: ModelConfig, seen: int) -> float:
    """Forward FLOPs of attention in all layers for `seen` pairs of a query and a key: a logit and
    a weighted value a head, 2 · head_dim each. Sliding windows are not taken off."""
    return 4.0 * config.num_layers * config.num_heads * config.head_dim * seen


def visible_pairs(layout: PrefixLayout) -> int:
    """How many (query, key) pairs of a row see each other: the causal prompt, and every branch
    token with the whole prompt and its own branch so far."""
    prompt, branch = layout.prompt, layout.branch
    of_branch = branch * prompt + branch * (branch + 1) // 2
    return prompt * (prompt + 1) // 2 + layout.branches * of_branch


def causal_read_flops(
    config: ModelConfig, rows: int, before: int, tokens: int, predictions: int
) -> float:
    """Ideal FLOPs of reading `tokens` more tokens a row on top of `before` cached ones, of which
    `predictions` a row meet the vocabulary: prefill, a review, or decoding."""
    seen = tokens * before + tokens * (tokens + 1) // 2
    vocabulary = 2.0 * config.hidden_size * config.vocab_size * predictions
    per_row = 2.0 * _kernel_size(config) * config.num_layers * tokens + attention_flops(
        config, seen
    )
    return rows * (per_row + vocabulary)
