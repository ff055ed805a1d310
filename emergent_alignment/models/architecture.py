"""What the decoder needs to know of a model: its sizes, its switches, and the kinds of its layers.

How files say it is in config.py; what all models of a family have in common, in family.py.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Self

from emergent_alignment.errors import UserError
from emergent_alignment.models.config_fields import MOST_LAYERS
from emergent_alignment.models.rope_config import Rope, RopeScaling

# Far beyond any model there is: what is larger is a broken file, and would be computed with, or
# asked of the memory, before a tensor is looked at.
_MOST = {
    "num_layers": MOST_LAYERS,
    "num_heads": 1 << 16,
    "num_kv_heads": 1 << 16,
    "head_dim": 1 << 16,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "vocab_size": 1 << 26,
    "max_positions": 2**31 - 1,
}
_LONGEST_PERIOD = 12
_LOOP = 4  # what a loop of its own may cost, in layers that are compiled
_POSITIVE = (
    *("embedding_scale", "query_scale", "residual_scale", "logits_divisor"),
    *("attention_cap", "logits_cap", "gate_limit"),
)


@dataclass(frozen=True)
class LayerKind:
    """What sets a layer's attention apart from that of other layers; static in every program."""

    window: int | None  # tokens that it sees, the query's own included; None: all of them
    rope: Rope | None  # None: no rotary positions


@dataclass(frozen=True)
class Stretch:
    """Neighbouring layers whose kinds come again and again: `groups` times the period `kinds`."""

    start: int
    kinds: tuple[LayerKind, ...]
    groups: int

    @property
    def stop(self) -> int:
        """The layer behind the last one."""
        return self.start + self.groups * len(self.kinds)


@dataclass(frozen=True)
class QueryGrowth:
    """Queries grow with their position p by 1 + beta · log(1 + ⌊p / positions⌋), as in Llama 4."""

    beta: float
    positions: int


@dataclass(frozen=True)
class Architecture:
    """The architecture of one decoder-only model; hashable, to be static in `jax.jit`.

    The defaults are those of a plain Llama in transformers.
    """

    family: str  # the model_type of one of models/families
    vocab_size: int  # rows of the embedding, which may be more than the tokenizer has tokens
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-6
    tie_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False  # of the attention's output projection
    mlp_bias: bool = False
    qk_norm: bool = False  # RMSNorm of queries and keys, before the rotation
    # How many tokens each layer sees, the query's own included; None: all of them.
    layer_windows: tuple[int | None, ...] | None = None
    max_positions: int = 2048
    windowed_rope: Rope | None = None  # of layers with a window, where it is another one
    rotary_layers: tuple[bool, ...] | None = None  # which layers rotate; None: all of them
    embedding_scale: float = 1.0  # embeddings are multiplied by it
    query_scale: float | None = None  # query · key is multiplied by it; None: 1/√head_dim
    query_growth: QueryGrowth | None = None
    residual_scale: float = 1.0  # what attention and MLP add is multiplied by it
    logits_divisor: float = 1.0
    attention_cap: float | None = None  # c · tanh(query · key / c), before the softmax
    logits_cap: float | None = None  # likewise of the logits
    num_experts: int = 0  # a layer's MLPs, of which a router chooses; 0: one MLP, and no router
    experts_per_token: int = 0
    expert_size: int = 0  # an expert's intermediate size
    normalised_experts: bool = False  # the chosen experts' weights are made to add up to 1
    gate_limit: float | None = None  # of gates that are clamped (decoder.py: GATES)

    @property
    def query_size(self) -> int:
        """The queries' width, all heads together."""
        return self.num_heads * self.head_dim

    @property
    def key_size(self) -> int:
        """The keys' and the values' width, all heads together."""
        return self.num_kv_heads * self.head_dim

    @property
    def inner_size(self) -> int:
        """Numbers that a token has inside a layer's MLP, or its chosen experts together."""
        return self.experts_per_token * self.expert_size or self.intermediate_size

    @property
    def unties(self) -> bool:
        """Whether the unembedding is a parameter of its own."""
        return not self.tie_embeddings

    @property
    def rope(self) -> Rope:
        """The rotary positions of layers that see all tokens."""
        return Rope(self.rope_theta, self.rope_scaling)

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """The kind of each layer."""
        windows = self.layer_windows or (None,) * self.num_layers
        rotary = self.rotary_layers or (True,) * self.num_layers
        windowed = self.windowed_rope or self.rope
        ropes = [self.rope if window is None else windowed for window in windows]
        return tuple(
            LayerKind(window, rope if rotates else None)
            for window, rope, rotates in zip(windows, ropes, rotary)
        )

    @property
    def windows(self) -> dict[int | None, tuple[int, ...]]:
        """The layers of each window that there is."""
        kinds = self.layer_kinds
        return {
            window: tuple(i for i, kind in enumerate(kinds) if kind.window == window)
            for window in dict.fromkeys(kind.window for kind in kinds)
        }

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The layers as stretches of periods: few loops, and few layers in their periods together,
        since each is compiled once, whatever the depth."""
        return _stretches(self.layer_kinds)

    def first_layers(self, layers: int) -> Self:
        """The model of its first layers."""
        windows, rotary = (
            each and each[:layers] for each in (self.layer_windows, self.rotary_layers)
        )
        return replace(self, num_layers=layers, layer_windows=windows, rotary_layers=rotary)

    @property
    def longest_row(self) -> int:
        """Tokens that a row may have: max_positions, or what the rope's scaling makes of them."""
        scaling = self.rope_scaling
        return self.max_positions if scaling is None else scaling.longest(self.max_positions)

    def check_row(self, tokens: int, what: str, remedy: str) -> None:
        """Raise UserError where a row of so many tokens is longer than the model can read: what is
        beyond its positions is computed, but means nothing."""
        if tokens > self.longest_row:
            dynamic = self.rope_scaling is not None and self.rope_scaling.kind == "dynamic"
            beyond = " (dynamic rope scaling beyond them is not supported)" if dynamic else ""
            raise UserError(
                f"{what} takes {tokens} tokens, and the model has {self.longest_row} positions"
                f"{beyond}; {remedy}"
            )

    def check(self, where: str) -> None:
        """What any source of a config must pass. Raises UserError when the numbers do not fit each
        other."""
        windows = [width for width in self.layer_windows or () if width is not None]
        sizes = {name: getattr(self, name) for name in _MOST} | {"window": min(windows, default=1)}
        for name, size in sizes.items():
            most = _MOST.get(name, size)
            if not 1 <= size <= most:
                bound = "at least 1" if size < 1 else f"at most {most}"
                raise UserError(f"{where}: {name} is {size}; it must be {bound}. Correct the file.")
        for rope in (self.rope, self.windowed_rope or self.rope):
            if not 1 < rope.theta < math.inf or not 0 < self.rms_norm_eps < 1:
                raise UserError(
                    f"{where}: the rope's base is {rope.theta} and the norms' epsilon"
                    f" {self.rms_norm_eps}; they must be more than 1, and between 0 and 1. Correct"
                    " the file."
                )
            if rope.scaling is not None:
                rope.scaling.check(where)
        self._check_scalars(where)
        if self.num_experts and not (
            0 < self.experts_per_token <= self.num_experts <= _MOST["num_heads"]
            and 0 < self.expert_size <= _MOST["intermediate_size"]
        ):
            raise UserError(
                f"{where}: {self.experts_per_token} of {self.num_experts} experts of"
                f" {self.expert_size} dimensions cannot be. Correct it."
            )
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"{where}: {self.num_heads} attention heads cannot share {self.num_kv_heads}"
                " key-value heads evenly. Correct num_attention_heads or num_key_value_heads."
            )
        if self.head_dim % 2:
            raise UserError(
                f"{where}: head_dim is {self.head_dim}; rotary positions need an even number."
                " Correct it."
            )

    def _check_scalars(self, where: str) -> None:
        named = {name: getattr(self, name) for name in _POSITIVE}
        if self.query_growth is not None:
            named["the positions at which queries grow"] = self.query_growth.positions
        for name, value in named.items():
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{where}: {name} is {value}; it must be more than 0. Correct it.")


@functools.lru_cache(maxsize=64)
def _stretches(kinds: tuple[LayerKind, ...]) -> tuple[Stretch, ...]:
    """From the last layer to the first, the cheapest way to go on."""
    best: list[tuple[int, tuple[Stretch, ...]]] = [(0, ())]  # from the end: [layers behind]
    for start in reversed(range(len(kinds))):
        ways = []
        for period in range(1, min(len(kinds) - start, _LONGEST_PERIOD) + 1):
            own = kinds[start : start + period]
            groups = 1
            while kinds[start + groups * period : start + (groups + 1) * period] == own:
                groups += 1
            for repeated in {1, groups}:
                stretch = Stretch(start, own, repeated)
                cost, rest = best[len(kinds) - stretch.stop]
                ways.append((_LOOP + period + cost, len(rest), (stretch, *rest)))
        cost, _, way = min(ways, key=lambda each: each[:2])
        best.append((cost, way))
    return best[-1][1]
