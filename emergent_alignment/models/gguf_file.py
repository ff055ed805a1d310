"""GGUF files: their metadata, their model config, and their tensors under Hugging Face names.

The tokenizer that a file carries is built in `gguf_tokenizer.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from emergent_alignment.errors import UserError
from emergent_alignment.models import names
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.config_fields import told
from emergent_alignment.models.families import FAMILIES, family_of
from emergent_alignment.models.family import Family
from emergent_alignment.models.gguf_reader import reader_class
from emergent_alignment.models.gguf_rope import recover_llama3_scaling
from emergent_alignment.models.rope_config import RopeScaling

GGUF_ARCHITECTURES = tuple(
    dict.fromkeys(family.gguf for family in FAMILIES.values() if family.gguf is not None)
)
ROPE_FACTORS = "rope_freqs.weight"


class GGUFFile:
    """One .gguf file, opened once: a `TensorSource` that also knows the file's config."""

    def __init__(self, path: Path):
        """Read the header and the metadata; tensors stay on disk until `read`.

        Raises:
            UserError: when the `gguf` package is absent, the file is broken or cut, or its
                architecture is unsupported.
        """
        self.path = path
        self._gguf = _import_gguf(path)
        try:
            reader = reader_class(self._gguf)(path)
            self.metadata = {name: field.contents() for name, field in reader.fields.items()}
            self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no such file. Correct the path.") from error
        except Exception as error:  # the reader checks little, and raises what NumPy raises
            raise self._broken(error) from error
        self.architecture = self.metadata.get("general.architecture")
        if self.architecture not in GGUF_ARCHITECTURES:
            raise UserError(
                f"{path}: its architecture is {told(self.architecture)}; supported are"
                f" {', '.join(GGUF_ARCHITECTURES)}. Choose a model of one of these."
            )
        if self.metadata.get("split.count", 1) not in (0, 1):
            raise UserError(
                f"{path}: it is one of {told(self.metadata['split.count'])} parts. Join them with"
                " llama.cpp's `llama-gguf-split --merge` and give the result."
            )
        self.config = self._read_config()
        self._name_of = self._huggingface_names()

    def _broken(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split())[:120]
        return UserError(f"{self.path}: not a complete GGUF file ({reason}). Download it again.")

    def _whole(self, key: str, default: int | None = None) -> int:
        """Metadata `{architecture}.{key}`, a whole number; required if it has no default."""
        value = self._value(key, int, default)
        if abs(value) >= 2**31:
            raise UserError(
                f"{self.path}: metadata {self.architecture}.{key} is {value}, which no model has."
                " Download the file again."
            )
        return value

    def _number(self, key: str, default: float | None = None) -> float:
        """Metadata `{architecture}.{key}`, a number; required if it has no default."""
        value = self._value(key, (int, float), default)
        if not abs(value) < 1e30:
            raise UserError(
                f"{self.path}: metadata {self.architecture}.{key} is no finite number. Download the"
                " file again."
            )
        # Stored as float32: 1e-5 would come back as 9.99999975e-06. Take the shortest decimal.
        return float(str(np.float32(value)))

    def _value(self, key: str, kinds: Any, default: Any) -> Any:
        value = self.metadata.get(f"{self.architecture}.{key}")
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, kinds):
            fault = "is missing" if value is None else f"is {str(value)[:40]}, not one number"
            raise UserError(
                f"{self.path}: metadata {self.architecture}.{key} {fault}. Choose another"
                " conversion of the model."
            )
        return value

    def _read_config(self) -> ModelConfig:
        num_heads = self._whole("attention.head_count")
        hidden_size = self._whole("embedding_length")
        num_layers = self._whole("block_count")
        window = self._whole("attention.sliding_window", 0)
        if num_layers > len(self._tensors):
            raise UserError(
                f"{self.path}: it announces {num_layers} layers, but holds {len(self._tensors)}"
                " tensors. Download it again."
            )
        head_dim = self._whole("attention.key_length", hidden_size // max(num_heads, 1))
        rotated = self._whole("rope.dimension_count", head_dim)
        if rotated != head_dim:
            raise UserError(
                f"{self.path}: rope.dimension_count is {rotated} of {head_dim}; supported is a full"
                " rotation. Choose another model."
            )
        theta = self._number("rope.freq_base", 10000.0)
        return ModelConfig(
            family=self._family(windowed=window > 0).model_type,
            vocab_size=self._vocab_size(),
            hidden_size=hidden_size,
            intermediate_size=self._whole("feed_forward_length"),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=self._whole("attention.head_count_kv", num_heads),
            head_dim=head_dim,
            rope_theta=theta,
            rope_scaling=self._rope_scaling(theta, head_dim),
            rms_norm_eps=self._number("attention.layer_norm_rms_epsilon"),
            tie_embeddings="output.weight" not in self._tensors,
            qkv_bias="blk.0.attn_q.bias" in self._tensors,
            output_bias="blk.0.attn_output.bias" in self._tensors,
            mlp_bias="blk.0.ffn_gate.bias" in self._tensors,
            qk_norm="blk.0.attn_q_norm.weight" in self._tensors,
            layer_windows=(window,) * num_layers if window else None,
            max_positions=self._whole("context_length"),
        ).checked(str(self.path))

    def _family(self, windowed: bool) -> Family:
        """Of the families that name this architecture, the one that can have windows if there is
        one, and else the one whose name it is."""
        named = [family for family in FAMILIES.values() if family.gguf == self.architecture]
        if windowed:
            named = [family for family in named if "layer_windows" in family.stated] or named
        return min(named, key=lambda family: family.model_type != self.architecture)

    def _vocab_size(self) -> int:
        """Rows of the embedding: the metadata need not state them, and the tokens may be fewer."""
        embedding = self._tensors.get("token_embd.weight")
        if embedding is None or not len(embedding.shape):
            raise UserError(
                f"{self.path}: tensor token_embd.weight is missing. Download the file again."
            )
        return int(embedding.shape[-1])

    def _rope_scaling(self, theta: float, head_dim: int) -> RopeScaling | None:
        # As in llama.cpp: the kind is linear unless stated, the older key stands for the newer one,
        # and 0 for no factor.
        kind = self.metadata.get(f"{self.architecture}.rope.scaling.type", "linear")
        factor = self._number("rope.scaling.factor", self._number("rope.scale_linear", 0.0)) or 1.0
        if kind == "none":
            factor = 1.0
        if factor <= 0:
            raise UserError(
                f"{self.path}: the rope scaling's factor is {factor}; it must be more than 0."
                " Choose another conversion of the model."
            )
        if ROPE_FACTORS in self._tensors and factor == 1.0:
            divisors = self._dequantized(ROPE_FACTORS)
            return recover_llama3_scaling(divisors, theta, head_dim, where=str(self.path))
        if ROPE_FACTORS in self._tensors:
            raise UserError(
                f"{self.path}: it scales its rope twice, by {ROPE_FACTORS} and by {told(kind)}."
                " Choose another conversion of the model."
            )
        if kind == "none":
            return None
        if kind not in ("linear", "yarn"):
            raise UserError(
                f"{self.path}: rope scaling is {told(kind)}; supported in GGUF are linear, yarn"
                " and Llama 3's. Choose another model."
            )
        if kind == "linear":
            return None if factor == 1.0 else RopeScaling("linear", factor)
        weight = self._number("rope.scaling.attn_factor", 1.0)
        return RopeScaling(
            "yarn",
            factor,
            self._whole("rope.scaling.original_context_length", self._whole("context_length")),
            beta_fast=self._number("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=self._number("rope.scaling.yarn_beta_slow", 1.0),
            # llama.cpp's factor multiplies YaRN's own one on cosine and sine; None is YaRN's own.
            attention_factor=None if weight == 1.0 else weight * (0.1 * math.log(factor) + 1.0),
        )

    def _huggingface_names(self) -> dict[str, str]:
        """GGUF names by Hugging Face names; tensors that have none keep their own."""
        named = {}
        for row in names.tensor_names(self.config).values():
            for name, index in row.files(self.config):
                named[name] = row.gguf.format(**dict(zip(("layer",), index)))
        known = {*named.values(), ROPE_FACTORS}
        held = {name: gguf for name, gguf in named.items() if gguf in self._tensors}
        return held | {name: name for name in self._tensors if name not in known}

    def names(self) -> Collection[str]:
        """Every tensor there is, under its Hugging Face name."""
        return self._name_of.keys()

    def where(self, name: str) -> str:
        """The file, for errors."""
        return str(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in Hugging Face's order, which is the reverse of GGUF's."""
        return tuple(int(size) for size in reversed(self._tensors[self._name_of[name]].shape))

    def read(self, name: str, part: tuple[slice, ...]) -> np.ndarray:
        """A part of one tensor, dequantised (whole) to float32, in Hugging Face's layout.

        Raises:
            UserError: for a quantisation that the `gguf` package cannot undo.
        """
        gguf_name = self._name_of[name]
        tensor = self._dequantized(gguf_name)
        if family_of(self.config).gguf_pairs and re.search(r"\.attn_[qk]\.", gguf_name):
            heads = self.config.num_heads if ".attn_q." in gguf_name else self.config.num_kv_heads
            tensor = _unpermuted(tensor, heads)
        return tensor[part]

    def _dequantized(self, gguf_name: str) -> np.ndarray:
        tensor = self._tensors[gguf_name]
        try:
            array = self._gguf.dequantize(np.asarray(tensor.data), tensor.tensor_type)
        except NotImplementedError as error:
            raise UserError(
                f"{self.path}: tensor {gguf_name} is stored as {tensor.tensor_type.name}, which"
                " cannot be undone. Choose another quantisation, such as Q8_0 or Q4_K_M."
            ) from error
        return np.asarray(array, np.float32)


def _unpermuted(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's reordering of a llama's query and key rows: [out, in] weights, [out] biases.

    It stores rows i and i + d/2 of each head side by side, for its interleaved rotation; Hugging
    Face rotates the two halves against each other.
    """
    pairs = tensor.reshape(heads, tensor.shape[0] // heads // 2, 2, *tensor.shape[1:])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)


def _import_gguf(path: Path) -> Any:
    try:
        import gguf
    except ImportError as error:
        raise UserError(
            f"{path}: reading .gguf files needs the gguf package. Run `pip install"
            " 'emergent-alignment[gguf]'`."
        ) from error
    return gguf
