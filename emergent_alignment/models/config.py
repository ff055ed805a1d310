"""The shape of a model: what the decoder needs to know, and how config.json says it.

Weights, tokenizers and end-of-text ids are not described here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.models.architecture import Architecture
from emergent_alignment.models.config_fields import flag, integer, number, told
from emergent_alignment.models.families import FAMILIES, WRAPPERS
from emergent_alignment.models.family import Family
from emergent_alignment.models.rope_config import RopeScaling, read_rope, write_rope_scaling
from emergent_alignment.models.stated import full_rope

__all__ = ["ModelConfig", "RopeScaling"]

# As config.json spells them; gpt-oss's says silu, and means its own.
_ACTIVATIONS = {
    "silu": ("silu", "swish"),
    "gelu_tanh": ("gelu_pytorch_tanh",),
    "clamped_swiglu": ("silu", "swish"),
}


@dataclass(frozen=True)
class ModelConfig(Architecture):
    """An architecture that a config.json says."""

    @classmethod
    def from_huggingface(cls, config: Any, *, where: str = "config.json") -> ModelConfig:
        """Read a config.json's content, or a transformers config object.

        Takes the rope settings in the older form (`rope_theta`, `rope_scaling`) and in that of
        transformers 5 (`rope_parameters`). `where` names the file in errors.

        Raises:
            UserError: for an unsupported family, activation, rope kind or layout, and for a missing
                or wrong field.
        """
        stated = config if isinstance(config, Mapping) else config.to_dict()
        stated = _text_of(stated, where)
        family = _family(stated, where)
        stated = {**family.defaults, **stated}
        _refuse_unsupported(stated, family, where)
        num_heads = integer(stated, "num_attention_heads", where)
        hidden_size = integer(stated, "hidden_size", where)
        rope = read_rope(full_rope(stated) if "windowed_rope" in family.stated else stated, where)
        result = cls(
            family=family.model_type,
            vocab_size=integer(stated, "vocab_size", where),
            hidden_size=hidden_size,
            intermediate_size=integer(stated, "intermediate_size", where),
            num_layers=integer(stated, "num_hidden_layers", where),
            num_heads=num_heads,
            num_kv_heads=integer(stated, "num_key_value_heads", where, default=num_heads),
            head_dim=integer(stated, "head_dim", where, default=hidden_size // max(num_heads, 1)),
            rope_theta=rope.theta,
            rope_scaling=rope.scaling,
            rms_norm_eps=number(stated, "rms_norm_eps", where, default=1e-6),
            tie_embeddings=flag(stated, "tie_word_embeddings", where=where),
            max_positions=integer(stated, "max_position_embeddings", where),
        )
        own = {name: rule.read(stated, where) for name, rule in family.stated.items()}
        return replace(result, **own).checked(where)

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
        family = FAMILIES.get(self.family)
        if family is None:
            raise UserError(
                f"config of family {self.family}: Hugging Face's config.json cannot state it: there"
                " is no such family."
            )
        content: dict[str, Any] = {
            "architectures": [family.architecture],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            family.activation_field: _ACTIVATIONS[family.activation][0],
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
        for rule in family.stated.values():
            content |= rule.write(self)
        self._require_stated(content)
        return content

    def _require_stated(self, content: dict[str, Any]) -> None:
        """Raise where config.json of this family says another thing than this config."""
        where = f"config of family {self.family}"
        read = type(self).from_huggingface(content, where=where)
        lost = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self)
            if getattr(self, each.name) != getattr(read, each.name)
        ]
        if lost:
            raise UserError(
                f"{where}: Hugging Face's config.json cannot state it: there is no field for"
                f" {', '.join(lost)}."
            )

    def checked(self, where: str) -> ModelConfig:
        """This config, after the checks that any source of it must pass.

        Raises:
            UserError: when the numbers do not fit each other.
        """
        self.check(where)
        return self


def _text_of(stated: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The fields of a checkpoint's text model, where it has images as well."""
    if stated.get("model_type") not in WRAPPERS:
        return stated
    text = stated.get("text_config")
    if not isinstance(text, Mapping):
        raise UserError(
            f"{where}: text_config is {told(text)}; it must be an object {{…}}. Download the file"
            " again."
        )
    # The head is the whole model's, and so is what is said of it; as in transformers, nothing said
    # means tied.
    tied = stated.get("tie_word_embeddings")
    held = stated.get("quantization_config") or text.get("quantization_config")
    return {
        **text,
        "tie_word_embeddings": True if tied is None else tied,
        "quantization_config": held,
    }


def _family(stated: Mapping[str, Any], where: str) -> Family:
    model_type = stated.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(
            f"{where}: model_type is {told(model_type)}; supported are {', '.join(FAMILIES)}, and"
            f" the text of {', '.join(WRAPPERS)}. Choose a model of one of these families."
        )
    return FAMILIES[model_type]


def _refuse_unsupported(stated: Mapping[str, Any], family: Family, where: str) -> None:
    """Raise for settings that would change the computation and that the decoder does not have."""
    names = _ACTIVATIONS[family.activation]
    activation = stated.get(family.activation_field, names[0])
    if activation not in names:
        also = f" (also called {', '.join(names[1:])})" if names[1:] else ""
        raise UserError(
            f"{where}: {family.activation_field} is {told(activation)}; supported is"
            f" {names[0]}{also}. Choose another model."
        )
    for name, values in family.only.items():
        if name in stated and stated[name] not in values:
            raise UserError(
                f"{where}: {name} is {told(stated[name])}; supported is"
                f" {' or '.join(map(told, values))}. Choose another model."
            )
    quantised = stated.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
    if quantised and method not in family.quantised:
        named = f" by {method}" if isinstance(method, str) and len(method) < 40 else ""
        raise UserError(
            f"{where}: the weights are quantised{named} (quantization_config); safetensors in"
            f" {', '.join([*family.quantised, 'float32'])}, bfloat16 or float16 are supported, and"
            " .gguf files of any quantisation. Choose one of these."
        )
    rotated = stated.get("partial_rotary_factor")
    if rotated is None:
        rope = stated.get("rope_parameters")
        rotated = rope.get("partial_rotary_factor") if isinstance(rope, Mapping) else None
    if rotated not in (None, 1, 1.0):
        raise UserError(
            f"{where}: partial_rotary_factor is {told(rotated)}; supported is 1. Choose another"
            " model."
        )
