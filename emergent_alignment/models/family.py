"""What the table of a family of models consists of: each parameter once, and what sets the family's
computation and its config.json apart.

The tables are in models/families, one file a family. Loading, export, PEFT's names, sharding,
quantisation, the decoder's layers, ideal FLOPs and docs/models.md are all read off them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from emergent_alignment.models.architecture import Architecture
from emergent_alignment.models.gguf_stated import GgufForm
from emergent_alignment.models.stated import Stated

TreePath = tuple[str, ...]


@dataclass(frozen=True)
class Dimension:
    """One dimension of a parameter: the attribute of Architecture that is its size, and its logical
    axis (parallel/sharding.py)."""

    size: str
    axis: str


_VOCABULARY = Dimension("vocab_size", "vocab")
_EMBED = Dimension("hidden_size", "embed")
_WIDTH = Dimension("hidden_size", "width")
_QUERIES = Dimension("query_size", "heads")
_KEYS = Dimension("key_size", "kv_heads")
_INNER = Dimension("intermediate_size", "mlp")
_EXPERTS = Dimension("num_experts", "experts")
_ALL_EXPERTS = Dimension("num_experts", "width")
_EXPERT_EMBED = Dimension("hidden_size", "expert_embed")
_EXPERT_INNER = Dimension("expert_size", "mlp")
_HEAD = Dimension("head_dim", "width")
_HEADS = Dimension("num_heads", "heads")
_ALL_QUERIES = Dimension("query_size", "width")
_ALL_KEYS = Dimension("key_size", "width")


@dataclass(frozen=True)
class Parameter:
    """A leaf of the parameter tree, and its tensors in files.

    path          keys of the tree; what is under "layers" is stacked on a leading axis of layers
    dimensions    of one layer's part, as the tree has it
    huggingface   the tensor's name, `{layer}` being the layer and `{expert}` the expert
    gguf          likewise; experts and kernels that share a tensor above need not share one there
    transposed    files hold [out, in]; GGUF files do so of every kernel
    turn, turns   of a tensor that holds the columns of several leaves in turns: which is this
                  leaf's, and how many there are
    together      there the columns of each leaf are together, and the leaves behind each other
    needs         the attribute of Architecture without which there is no such parameter
    adapted       whether LoRA's adapters may stand beside it
    quantisable   whether a frozen copy may hold it in 8 bits or 4 (held_kernels.py)
    """

    path: TreePath
    dimensions: tuple[Dimension, ...]
    huggingface: str
    gguf: str
    transposed: bool = False
    turn: int = 0
    turns: int = 1
    together: bool = False
    needs: str = ""
    adapted: bool = False
    quantisable: bool = False

    @property
    def stacked(self) -> bool:
        """Whether the leaf has a leading axis of layers, so that files hold one tensor for each."""
        return self.path[0] == "layers"

    @property
    def leading(self) -> int:
        """How many of the leaf's axes (layers, experts) are tensors of their own in files."""
        return self.stacked + ("{expert}" in self.huggingface)

    @property
    def of_norm(self) -> bool:
        """Whether it is the weight of a norm."""
        return self.path[-1].endswith("norm")

    @property
    def of_experts(self) -> bool:
        """Whether each expert of a layer has its own, all of them in one leaf."""
        return _EXPERTS in self.dimensions

    def files(self, config: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The name of each tensor in files that makes up the leaf, and its index in the leaf."""
        for index in itertools.product(*map(range, self.shape(config)[: self.leading])):
            yield self.name(index), index

    def name(self, index: tuple[int, ...]) -> str:
        """The Hugging Face name of the tensor at this index of the leaf."""
        return self.huggingface.format(**dict(zip(("layer", "expert"), index)))

    def part_in_file(self, part: tuple[slice, ...], columns: int) -> tuple[slice, ...]:
        """What has to be read of a tensor for this part of the leaf, which has so many columns."""
        *before, last = part
        if self.together:
            first = self.turn * columns
            part = (*before, slice(first + last.start, first + last.stop))
        else:
            part = (*before, slice(last.start * self.turns, last.stop * self.turns))
        return part[::-1] if self.transposed else part

    def taken(self, tensor: np.ndarray) -> np.ndarray:
        """The leaf's own numbers of what was read of a tensor, as the leaf has them."""
        tensor = tensor.T if self.transposed else tensor
        return tensor if self.together else tensor[..., self.turn :: self.turns]

    def joined(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """The tensor of files that holds these leaves' numbers, each as files have it."""
        if len(parts) == 1:
            return parts[0]
        if self.together:
            return np.concatenate(parts, axis=0 if self.transposed else -1)
        return np.stack(parts, axis=-1).reshape(*parts[0].shape[:-1], -1)

    @property
    def module(self) -> str:
        """The name of the Hugging Face module within its layer, as PEFT speaks of it."""
        return self.huggingface.removeprefix(_LAYER).rsplit(".", 1)[0]

    def is_in(self, config: Architecture) -> bool:
        """Whether a model of this architecture has it."""
        return not self.needs or bool(getattr(config, self.needs))

    def shape(self, config: Architecture) -> tuple[int, ...]:
        """The shape of the leaf, layers first."""
        sizes = tuple(getattr(config, dimension.size) for dimension in self.dimensions)
        return (config.num_layers, *sizes) if self.stacked else sizes

    @property
    def axes(self) -> tuple[str, ...]:
        """The logical axes of the leaf."""
        axes = tuple(dimension.axis for dimension in self.dimensions)
        return ("layers", *axes) if self.stacked else axes


@dataclass(frozen=True)
class Family:
    """All that one family has in common.

    model_type    of its config.json; what Architecture.family is
    architecture  the class of transformers
    wrappers      model types of checkpoints that hold such a model as their text_config
    sizes         what its published models are called, for docs/models.md
    parameters    in the order of the forward pass. Which norms there are says where they stand:
                  attention_norm and mlp_norm before, attention_output_norm and mlp_output_norm
                  behind what a layer adds to the residual stream
    stated        fields of Architecture: how config.json states them
    defaults      what transformers assumes where config.json is silent
    only          what config.json may say of these fields, where it says anything of them
    activation    of the gate (decoder.py: GATES), which config.json names in activation_field
    norm_offset   is added to the norms' weights
    quantised     the methods of quantisation that reading its safetensors undoes
    gguf          how GGUF files hold it, in each of the ways that llama.cpp writes it
    """

    model_type: str
    architecture: str
    sizes: str
    parameters: tuple[Parameter, ...]
    stated: Mapping[str, Stated] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    activation: Literal["silu", "gelu_tanh", "clamped_swiglu"] = "silu"
    activation_field: str = "hidden_act"
    norm_offset: float = 0.0
    quantised: tuple[str, ...] = ()
    gguf: tuple[GgufForm, ...] = ()


_LAYER = "model.layers.{layer}."


def norm(name: str, dimension: Dimension, module: str, gguf: str, needs: str = "") -> Parameter:
    """The weight of a layer's RMSNorm."""
    names = f"{_LAYER}{module}.weight", f"blk.{{layer}}.{gguf}.weight"
    return Parameter(("layers", name), (dimension,), *names, needs=needs)


def linear(
    name: str, inputs: Dimension, outputs: Dimension, module: str, gguf: str, bias: str
) -> tuple[Parameter, Parameter]:
    """A layer's projection: its kernel, and the bias that there is if `bias` is true of the
    architecture."""
    path, stem = ("layers", name), f"blk.{{layer}}.{gguf}"
    kernel = Parameter(
        (*path, "kernel"),
        (inputs, outputs),
        f"{_LAYER}{module}.weight",
        f"{stem}.weight",
        transposed=True,
        adapted=True,
        quantisable=True,
    )
    names = f"{_LAYER}{module}.bias", f"{stem}.bias"
    return kernel, Parameter((*path, "bias"), (outputs,), *names, needs=bias)


def expert(name: str, inputs: Dimension, outputs: Dimension, part: str) -> Parameter:
    """One of the three kernels of a layer's experts, all of them in one leaf."""
    return Parameter(
        ("layers", name, "kernel"),
        (_EXPERTS, inputs, outputs),
        f"{_LAYER}mlp.experts.{{expert}}.{part}_proj.weight",
        f"blk.{{layer}}.ffn_{part}_exps.weight",
        transposed=True,
        adapted=True,
        quantisable=True,
    )


def expert_of_one_tensor(
    name: str, inputs: Dimension, outputs: Dimension, tensor: str, gguf: str, turn: int, turns: int
) -> tuple[Parameter, Parameter]:
    """One of the three kernels of a layer's experts and its bias, where files hold all experts in
    one tensor, [in, out], and several kernels' columns in turns."""
    path, stem = ("layers", name), f"blk.{{layer}}.ffn_{gguf}_exps"
    tensor = f"{_LAYER}mlp.experts.{tensor}_proj"
    kernel = Parameter(
        (*path, "kernel"),
        (_EXPERTS, inputs, outputs),
        tensor,
        f"{stem}.weight",
        turn=turn,
        turns=turns,
        adapted=True,
        quantisable=True,
    )
    sizes, names = (_EXPERTS, outputs), (f"{tensor}_bias", f"{stem}.bias")
    return kernel, Parameter((*path, "bias"), sizes, *names, turn=turn, turns=turns)


NORMS_BEFORE = (
    norm("attention_norm", _WIDTH, "input_layernorm", "attn_norm"),
    norm("mlp_norm", _WIDTH, "post_attention_layernorm", "ffn_norm"),
)
NORMS_BEHIND = (
    norm("attention_output_norm", _WIDTH, "post_attention_layernorm", "post_attention_norm"),
    norm("mlp_output_norm", _WIDTH, "post_feedforward_layernorm", "post_ffw_norm"),
)
NORMS_AROUND = (
    norm("attention_norm", _WIDTH, "input_layernorm", "attn_norm"),
    norm("mlp_norm", _WIDTH, "pre_feedforward_layernorm", "ffn_norm"),
    *NORMS_BEHIND,
)
NORMS_BEFORE_BY_PLACE = (  # GGUF's name of the second says where it stands, not what it is for
    NORMS_BEFORE[0],
    norm("mlp_norm", _WIDTH, "post_attention_layernorm", "post_attention_norm"),
)
HEAD_NORMS = (
    norm("query_norm", _HEAD, "self_attn.q_norm", "attn_q_norm", "qk_norm"),
    norm("key_norm", _HEAD, "self_attn.k_norm", "attn_k_norm", "qk_norm"),
)
WIDE_NORMS = (  # over all heads together
    norm("query_norm", _ALL_QUERIES, "self_attn.q_norm", "attn_q_norm", "qk_norm"),
    norm("key_norm", _ALL_KEYS, "self_attn.k_norm", "attn_k_norm", "qk_norm"),
)
ATTENTION = (
    *linear("query", _EMBED, _QUERIES, "self_attn.q_proj", "attn_q", "qkv_bias"),
    *linear("key", _EMBED, _KEYS, "self_attn.k_proj", "attn_k", "qkv_bias"),
    *linear("value", _EMBED, _KEYS, "self_attn.v_proj", "attn_v", "qkv_bias"),
    *linear("output", _QUERIES, _EMBED, "self_attn.o_proj", "attn_output", "output_bias"),
)
GATED_MLP = (
    *linear("gate", _EMBED, _INNER, "mlp.gate_proj", "ffn_gate", "mlp_bias"),
    *linear("up", _EMBED, _INNER, "mlp.up_proj", "ffn_up", "mlp_bias"),
    *linear("down", _INNER, _EMBED, "mlp.down_proj", "ffn_down", "mlp_bias"),
)

SHARED_MLP = (  # gate and up are one tensor
    *(
        replace(
            linear(name, _EMBED, _INNER, "shared_mlp.input_linear", f"ffn_{name}", "")[0],
            turn=turn,
            turns=2,
            together=True,
        )
        for turn, name in enumerate(("gate", "up"))
    ),
    linear("down", _INNER, _EMBED, "shared_mlp.output_linear", "ffn_down", "")[0],
)


EXPERT_MLP = (
    Parameter(
        ("layers", "router", "kernel"),
        (_EMBED, _ALL_EXPERTS),
        f"{_LAYER}mlp.gate.weight",
        "blk.{layer}.ffn_gate_inp.weight",
        transposed=True,
    ),
    expert("expert_gate", _EXPERT_EMBED, _EXPERT_INNER, "gate"),
    expert("expert_up", _EXPERT_EMBED, _EXPERT_INNER, "up"),
    expert("expert_down", _EXPERT_INNER, _EXPERT_EMBED, "down"),
)
BIASED_EXPERT_MLP = (
    Parameter(
        ("layers", "router", "kernel"),
        (_EMBED, _ALL_EXPERTS),
        f"{_LAYER}mlp.router.weight",
        "blk.{layer}.ffn_gate_inp.weight",
        transposed=True,
    ),
    Parameter(
        ("layers", "router", "bias"),
        (_ALL_EXPERTS,),
        f"{_LAYER}mlp.router.bias",
        "blk.{layer}.ffn_gate_inp.bias",
    ),
    *expert_of_one_tensor("expert_gate", _EXPERT_EMBED, _EXPERT_INNER, "gate_up", "gate", 0, 2),
    *expert_of_one_tensor("expert_up", _EXPERT_EMBED, _EXPERT_INNER, "gate_up", "up", 1, 2),
    *expert_of_one_tensor("expert_down", _EXPERT_INNER, _EXPERT_EMBED, "down", "down", 0, 1),
)
SINKS = Parameter(
    ("layers", "sinks"), (_HEADS,), f"{_LAYER}self_attn.sinks", "blk.{layer}.attn_sinks.weight"
)


def decoder(*layer: Parameter) -> tuple[Parameter, ...]:
    """A whole model of such layers."""
    embedding = Parameter(
        ("embedding",), (_VOCABULARY, _EMBED), "model.embed_tokens.weight", "token_embd.weight"
    )
    final_norm = Parameter(("final_norm",), (_WIDTH,), "model.norm.weight", "output_norm.weight")
    unembedding = Parameter(
        ("unembedding",),
        (_EMBED, _VOCABULARY),
        "lm_head.weight",
        "output.weight",
        transposed=True,
        needs="unties",
    )
    return (embedding, *layer, final_norm, unembedding)
