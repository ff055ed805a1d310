"""The shape of a model: what the decoder needs to know, and how config.json says it.

Weights, tokenizers and end-of-text ids are not described here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.models.config_fields import (
    MOST_LAYERS,
    flag,
    integer,
    number,
    told,
)
from emergent_alignment.models.rope_config import RopeScaling, read_rope, write_rope_scaling

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

# What transformers assumes where config.json is silent (tests/models/test_config.py compares).
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen2": {"max_position_embeddings": 32768, "num_key_value_heads": 32},
    "qwen3": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128},
}


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


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of one decoder-only model; hashable, to be static in `jax.jit`.

    The defaults are those of a plain Llama in transformers.
    """

    family: str  # one of FAMILIES
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
    qk_norm: bool = False  # RMSNorm of each query and key head, before the rotation
    # How many tokens each layer sees, the query's own included; None: all of them.
    layer_windows: tuple[int | None, ...] | None = None
    max_positions: int = 2048

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

    @classmethod
    def from_huggingface(cls, config: Any, *, where: str = "config.json") -> ModelConfig:
        """Read a config.json's content, or a transformers config object.

        Takes the rope settings in the older form (`rope_theta`, `rope_scaling`) and in that of
        transformers 5 (`rope_parameters`). `where` names the file in errors.

        Raises:
            UserError: for an unsupported family, activation, rope kind or layout, and for a missing
                or wrong field.
        """
        fields = config if isinstance(config, Mapping) else config.to_dict()
        family = fields.get("model_type")
        if family not in FAMILIES:
            raise UserError(
                f"{where}: model_type is {told(family)}; supported are {', '.join(FAMILIES)}. "
                "Choose a model of one of these families."
            )
        fields = {**_DEFAULTS[family], **fields}
        _refuse_unsupported(fields, where)
        attention_bias = family in ("llama", "qwen3") and flag(
            fields, "attention_bias", where=where
        )
        num_heads = integer(fields, "num_attention_heads", where)
        hidden_size = integer(fields, "hidden_size", where)
        num_layers = integer(fields, "num_hidden_layers", where)
        rope_theta, rope_scaling = read_rope(fields, where)
        result = cls(
            family=family,
            vocab_size=integer(fields, "vocab_size", where),
            hidden_size=hidden_size,
            intermediate_size=integer(fields, "intermediate_size", where),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=integer(fields, "num_key_value_heads", where, default=num_heads),
            head_dim=integer(fields, "head_dim", where, default=hidden_size // max(num_heads, 1)),
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            rms_norm_eps=number(fields, "rms_norm_eps", where, default=1e-6),
            tie_embeddings=flag(fields, "tie_word_embeddings", where=where),
            qkv_bias=family == "qwen2" or attention_bias,
            output_bias=attention_bias,
            mlp_bias=family == "llama" and flag(fields, "mlp_bias", where=where),
            qk_norm=family == "qwen3",
            layer_windows=_read_windows(fields, family, num_layers, where),
            max_positions=integer(fields, "max_position_embeddings", where),
        )
        return result.checked(where)

    def to_huggingface(
        self,
        *,
        bos_token_id: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        dtype: str = "float32",
    ) -> dict[str, Any]:
        """The content of a config.json that transformers 4 and 5 load as this architecture.

        Raises:
            UserError: where the family's Hugging Face class has no field for what this config says.
        """
        _require_expressible(self)
        content: dict[str, Any] = {
            "architectures": [ARCHITECTURES[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "rope_theta": self.rope_theta,
            "torch_dtype": dtype,
            "bos_token_id": bos_token_id,
            "eos_token_id": (
                eos_token_id if isinstance(eos_token_id, int | None) else list(eos_token_id)
            ),
            "pad_token_id": pad_token_id,
        }
        if self.rope_scaling is not None:
            content["rope_scaling"] = write_rope_scaling(self.rope_scaling)
        if self.family in ("llama", "qwen3"):
            content["attention_bias"] = self.qkv_bias
        if self.family == "llama":
            content["mlp_bias"] = self.mlp_bias
        return content | _write_windows(self)

    def checked(self, where: str) -> ModelConfig:
        """This config, after the checks that any source of it must pass.

        Raises:
            UserError: when the numbers do not fit each other.
        """
        windows = [width for width in self.layer_windows or () if width is not None]
        sizes = {name: getattr(self, name) for name in _MOST} | {"window": min(windows, default=1)}
        for name, size in sizes.items():
            most = _MOST.get(name, size)
            if not 1 <= size <= most:
                bound = "at least 1" if size < 1 else f"at most {most}"
                raise UserError(f"{where}: {name} is {size}; it must be {bound}. Correct the file.")
        if not 1 < self.rope_theta < math.inf or not 0 < self.rms_norm_eps < 1:
            raise UserError(
                f"{where}: the rope's base is {self.rope_theta} and the norms' epsilon"
                f" {self.rms_norm_eps}; they must be more than 1, and between 0 and 1. Correct the"
                " file."
            )
        if self.rope_scaling is not None:
            self.rope_scaling.check(where)
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
        return self


def _refuse_unsupported(fields: Mapping[str, Any], where: str) -> None:
    """Raise for settings that would change the computation and that the decoder does not have."""
    activation = fields.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UserError(
            f"{where}: hidden_act is {told(activation)}; supported is silu (also called swish)."
            " Choose another model."
        )
    if quantised := fields.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
        named = f" by {method}" if isinstance(method, str) and len(method) < 40 else ""
        raise UserError(
            f"{where}: the weights are quantised{named} (quantization_config); safetensors in"
            " float32, bfloat16 or float16 are supported, and .gguf files of any quantisation."
            " Choose one of these."
        )
    rotated = fields.get("partial_rotary_factor")
    if rotated is None:
        rope = fields.get("rope_parameters")
        rotated = rope.get("partial_rotary_factor") if isinstance(rope, Mapping) else None
    if rotated not in (None, 1, 1.0):
        raise UserError(
            f"{where}: partial_rotary_factor is {told(rotated)}; supported is 1. Choose another"
            " model."
        )


def _read_windows(
    fields: Mapping[str, Any], family: str, num_layers: int, where: str
) -> tuple[int | None, ...] | None:
    """One window a layer, or None where no layer has one. Llama has none, whatever a file says."""
    window = fields.get("sliding_window")
    if family == "llama" or (family == "mistral" and window is None):
        return None
    if family == "mistral":
        return (integer(fields, "sliding_window", where),) * num_layers
    if not flag(fields, "use_sliding_window", where=where):
        return None
    window = integer(fields, "sliding_window", where, default=4096)
    layer_types = fields.get("layer_types")
    if layer_types is None:
        first = integer(fields, "max_window_layers", where, default=28)
        layer_types = [
            "sliding_attention" if layer >= first else "full_attention"
            for layer in range(num_layers)
        ]
    if not isinstance(layer_types, list) or any(not isinstance(k, str) for k in layer_types):
        raise UserError(f"{where}: layer_types must be a list of names. Correct it.")
    unknown = sorted(set(layer_types) - {"sliding_attention", "full_attention"})
    if unknown or len(layer_types) != num_layers:
        raise UserError(
            f"{where}: layer_types must name full_attention or sliding_attention for each of"
            f" {num_layers} layers; found {len(layer_types)}"
            f" entries{' with ' + ', '.join(unknown) if unknown else ''}. Correct it."
        )
    windows = tuple(window if kind == "sliding_attention" else None for kind in layer_types)
    return windows if any(windows) else None


def _write_windows(config: ModelConfig) -> dict[str, Any]:
    if config.family == "llama":
        return {}
    windows = config.layer_windows
    window = None if windows is None else next(width for width in windows if width is not None)
    if config.family == "mistral":
        return {"sliding_window": window}
    if windows is None:
        return {"use_sliding_window": False, "sliding_window": None}
    sliding = [width is not None for width in windows]
    return {
        "use_sliding_window": True,
        "sliding_window": window,
        # For transformers 4, right where the sliding layers are the last ones; 5 reads layer_types.
        "max_window_layers": sliding.index(True),
        "layer_types": ["sliding_attention" if slides else "full_attention" for slides in sliding],
    }


def _require_expressible(config: ModelConfig) -> None:
    """Raise where config.json of this family cannot say what the config says."""
    family, widths = config.family, {width for width in config.layer_windows or ()}
    problem = None
    if family not in FAMILIES:
        problem = f"there is no family {family!r}"
    elif family in ("llama", "qwen3") and config.qkv_bias != config.output_bias:
        problem = "one setting, attention_bias, covers query, key, value and output"
    elif family == "mistral" and (config.qkv_bias or config.output_bias):
        problem = "it has no attention biases"
    elif family == "qwen2" and (not config.qkv_bias or config.output_bias):
        problem = "it has biases on query, key and value, and none on output"
    elif family != "llama" and config.mlp_bias:
        problem = "it has no biases in its MLP"
    elif config.qk_norm != (family == "qwen3"):
        problem = "query and key norms belong to qwen3 alone"
    elif (family == "llama" and widths) or len(widths - {None}) > 1:
        problem = "these sliding windows have no field"
    elif family == "mistral" and len(widths) > 1:
        problem = "all its layers share one sliding window"
    if problem:
        raise UserError(
            f"config of family {family}: Hugging Face's config.json cannot state it: {problem}."
        )
