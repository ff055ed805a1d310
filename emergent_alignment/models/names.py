"""The one table between the parameter tree, Hugging Face tensor names and GGUF tensor names.

A tree path is a tuple of keys. Arrays under "layers" are stacked on a leading axis, one row a
layer; kernels are stored [in, out], transposed from the files.
"""

from __future__ import annotations

from dataclasses import dataclass

from emergent_alignment.models.config import ModelConfig

Path = tuple[str, ...]


@dataclass(frozen=True)
class TensorName:
    """A leaf of the parameter tree and its tensors' names in files, `{layer}` being the layer."""

    path: Path
    huggingface: str
    gguf: str
    transposed: bool = False  # files hold [out, in]

    @property
    def stacked(self) -> bool:
        """Whether the leaf has a leading axis of layers, so that files hold one tensor for each."""
        return self.path[0] == "layers"


PROJECTION_NAMES = {  # our name: (Hugging Face module, GGUF name)
    "query": ("self_attn.q_proj", "attn_q"),
    "key": ("self_attn.k_proj", "attn_k"),
    "value": ("self_attn.v_proj", "attn_v"),
    "output": ("self_attn.o_proj", "attn_output"),
    "gate": ("mlp.gate_proj", "ffn_gate"),
    "up": ("mlp.up_proj", "ffn_up"),
    "down": ("mlp.down_proj", "ffn_down"),
}

PROJECTION_AXES = {  # logical axes of the kernels' two sides (parallel/sharding.py)
    "query": ("embed", "heads"),
    "key": ("embed", "kv_heads"),
    "value": ("embed", "kv_heads"),
    "output": ("heads", "embed"),
    "gate": ("embed", "mlp"),
    "up": ("embed", "mlp"),
    "down": ("mlp", "embed"),
}

_NORMS = {
    "attention_norm": ("input_layernorm", "attn_norm"),
    "mlp_norm": ("post_attention_layernorm", "ffn_norm"),
    "query_norm": ("self_attn.q_norm", "attn_q_norm"),
    "key_norm": ("self_attn.k_norm", "attn_k_norm"),
}

_TABLE: tuple[TensorName, ...] = (
    TensorName(("embedding",), "model.embed_tokens.weight", "token_embd.weight"),
    *(
        TensorName(
            ("layers", norm),
            f"model.layers.{{layer}}.{module}.weight",
            f"blk.{{layer}}.{gguf}.weight",
        )
        for norm, (module, gguf) in _NORMS.items()
    ),
    *(
        TensorName(
            ("layers", projection, leaf),
            f"model.layers.{{layer}}.{module}.{suffix}",
            f"blk.{{layer}}.{gguf}.{suffix}",
            transposed=leaf == "kernel",
        )
        for projection, (module, gguf) in PROJECTION_NAMES.items()
        for leaf, suffix in (("kernel", "weight"), ("bias", "bias"))
    ),
    TensorName(("final_norm",), "model.norm.weight", "output_norm.weight"),
    TensorName(("unembedding",), "lm_head.weight", "output.weight", transposed=True),
)


def projection_sizes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """The (in, out) sizes of each of the seven projections."""
    hidden, mlp = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return {
        "query": (hidden, queries),
        "key": (hidden, keys),
        "value": (hidden, keys),
        "output": (queries, hidden),
        "gate": (hidden, mlp),
        "up": (hidden, mlp),
        "down": (mlp, hidden),
    }


def parameter_shapes(config: ModelConfig) -> dict[Path, tuple[int, ...]]:
    """The shape of every leaf of the parameter tree, by path, in the order of the forward pass."""
    layers, hidden = config.num_layers, config.hidden_size
    shapes: dict[Path, tuple[int, ...]] = {("embedding",): (config.vocab_size, hidden)}
    shapes[("layers", "attention_norm")] = (layers, hidden)
    shapes[("layers", "mlp_norm")] = (layers, hidden)
    if config.qk_norm:
        shapes[("layers", "query_norm")] = (layers, config.head_dim)
        shapes[("layers", "key_norm")] = (layers, config.head_dim)
    biased = dict.fromkeys(("query", "key", "value"), config.qkv_bias)
    biased |= {"output": config.output_bias} | dict.fromkeys(
        ("gate", "up", "down"), config.mlp_bias
    )
    for projection, (inputs, outputs) in projection_sizes(config).items():
        shapes[("layers", projection, "kernel")] = (layers, inputs, outputs)
        if biased[projection]:
            shapes[("layers", projection, "bias")] = (layers, outputs)
    shapes[("final_norm",)] = (hidden,)
    if not config.tie_embeddings:
        shapes[("unembedding",)] = (hidden, config.vocab_size)
    return shapes


def parameter_axes(path: Path) -> tuple[str, ...]:
    """The logical axes of a leaf of the parameter tree, of a tree of adapters, or of what a policy
    is steered by (training/state.py)."""
    *_, name = path
    if name in ("steering", "residual"):  # what a policy is steered by, and where it is added
        return "layers", "width"
    if name == "embedding":
        return "vocab", "embed"
    if name == "unembedding":
        return "embed", "vocab"
    if name.endswith("norm"):
        return ("width",) if name == "final_norm" else ("layers", "width")
    inputs, outputs = PROJECTION_AXES[path[-2]]
    axes = {
        "kernel": (inputs, outputs),
        "bias": (outputs,),
        "scale": (outputs,),
        "a": (inputs, "rank"),
        "b": ("rank", outputs),
    }
    return "layers", *axes[name]


def tensor_names(config: ModelConfig) -> dict[Path, TensorName]:
    """The rows of the table that this architecture has, by path."""
    shapes = parameter_shapes(config)
    return {row.path: row for row in _TABLE if row.path in shapes}


def file_shape(name: TensorName, leaf_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of each of the tensors in a file that make up a leaf of this shape."""
    shape = leaf_shape[1:] if name.stacked else leaf_shape
    return shape[::-1] if name.transposed else shape
