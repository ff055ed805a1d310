"""GGUF files: their metadata, their model config, and their tensors under Hugging Face names.

The tokenizer that a file carries is built in `gguf_tokenizer.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from emergent_alignment.errors import UserError
from emergent_alignment.models import names
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.config_fields import told
from emergent_alignment.models.families import FAMILIES, family_of
from emergent_alignment.models.family import Family, Parameter
from emergent_alignment.models.gguf_reader import reader_class
from emergent_alignment.models.gguf_rope import recover_llama3_scaling
from emergent_alignment.models.gguf_stated import GgufForm, GgufMetadata
from emergent_alignment.models.rope_config import RopeScaling

GGUF_ARCHITECTURES = tuple(
    dict.fromkeys(form.architecture for family in FAMILIES.values() for form in family.gguf)
)
ROPE_FACTORS = "rope_freqs.weight"


@dataclasses.dataclass(frozen=True)
class _Held:
    """What the file holds of one of Hugging Face's tensors: a tensor, an expert of one, or several
    that Hugging Face has in one."""

    tensors: tuple[str, ...]
    row: Parameter | None = None  # None: a tensor that has no place in the model
    expert: int | None = None


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
        self._stated = GgufMetadata(self.metadata, self.architecture, str(path))
        family, self._form = self._family()
        self.config = self._read_config(family)
        self._held = self._huggingface_names()

    def _broken(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split())[:120]
        return UserError(f"{self.path}: not a complete GGUF file ({reason}). Download it again.")

    def _family(self) -> tuple[Family, GgufForm]:
        """Of the families that llama.cpp writes under this architecture's name, the one that the
        metadata marks, or else the one that nothing marks."""
        named = [
            (family, form)
            for family in FAMILIES.values()
            for form in family.gguf
            if form.architecture == self.architecture
        ]
        marked = [each for each in named if each[1].is_of(self._stated)]
        return (marked or [each for each in named if not each[1].marked])[0]

    def _read_config(self, family: Family) -> ModelConfig:
        stated = self._stated
        num_heads = stated.whole("attention.head_count")
        hidden_size = stated.whole("embedding_length")
        num_layers = stated.whole("block_count")
        window = stated.whole("attention.sliding_window", 0)
        if num_layers > len(self._tensors):
            raise UserError(
                f"{self.path}: it announces {num_layers} layers, but holds {len(self._tensors)}"
                " tensors. Download it again."
            )
        head_dim = stated.whole("attention.key_length", hidden_size // max(num_heads, 1))
        rotated = stated.whole("rope.dimension_count", head_dim)
        if rotated != head_dim:
            raise UserError(
                f"{self.path}: rope.dimension_count is {rotated} of {head_dim}; supported is a full"
                " rotation. Choose another model."
            )
        theta = stated.number("rope.freq_base", 10000.0)
        config = ModelConfig(
            family=family.model_type,
            vocab_size=self._vocab_size(),
            hidden_size=hidden_size,
            intermediate_size=stated.whole("feed_forward_length"),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=stated.whole("attention.head_count_kv", num_heads),
            head_dim=head_dim,
            rope_theta=theta,
            rope_scaling=self._rope_scaling(theta, head_dim),
            rms_norm_eps=stated.number("attention.layer_norm_rms_epsilon"),
            tie_embeddings="output.weight" not in self._tensors,
            qkv_bias="blk.0.attn_q.bias" in self._tensors,
            output_bias="blk.0.attn_output.bias" in self._tensors,
            mlp_bias="blk.0.ffn_gate.bias" in self._tensors,
            qk_norm="blk.0.attn_q_norm.weight" in self._tensors,
            layer_windows=(window,) * num_layers if window else None,
            max_positions=stated.whole("context_length"),
        )
        return dataclasses.replace(config, **self._form.read(stated)).checked(str(self.path))

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
        kind = self._stated.value("rope.scaling.type", "linear")
        factor = (
            self._stated.number(
                "rope.scaling.factor", self._stated.number("rope.scale_linear", 0.0)
            )
            or 1.0
        )
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
        return self._yarn(factor)

    def _yarn(self, factor: float) -> RopeScaling:
        stated = self._stated
        weight = stated.number("rope.scaling.attn_factor", 1.0)
        own = {name: rule.read(stated) for name, rule in self._form.yarn.items()}
        scaling = RopeScaling(
            "yarn",
            factor,
            stated.whole("rope.scaling.original_context_length", stated.whole("context_length")),
            beta_fast=stated.number("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=stated.number("rope.scaling.yarn_beta_slow", 1.0),
            # llama.cpp's factor multiplies YaRN's own one on cosine and sine; None is YaRN's own.
            attention_factor=None if weight == 1.0 else weight * (0.1 * math.log(factor) + 1.0),
        )
        return dataclasses.replace(scaling, **own)

    def _huggingface_names(self) -> dict[str, _Held]:
        """What is held, by Hugging Face names; tensors that have none keep their own."""
        parts: dict[str, dict[int, _Held]] = {}
        for row in names.tensor_names(self.config).values():
            self._check_experts(row)
            for name, index in row.files(self.config):
                layer, expert = (*index, None, None)[:2]
                tensor = row.gguf.format(layer=layer)
                parts.setdefault(name, {})[row.turn] = _Held((tensor,), row, expert)
        known = {ROPE_FACTORS}
        held = {}
        for name, turns in parts.items():
            tensors = tuple(turns[turn].tensors[0] for turn in sorted(turns))
            known.update(tensors)
            if self._tensors.keys() >= set(tensors):
                held[name] = dataclasses.replace(turns[0], tensors=tensors)
        return held | {name: _Held((name,)) for name in self._tensors if name not in known}

    def _check_experts(self, row: Parameter) -> None:
        """Before as many names are made as the metadata says that there are experts."""
        name = row.gguf.format(layer=0)
        if not row.of_experts:
            return
        if name not in self._tensors:
            raise UserError(f"{self.path}: tensor {name} is missing. Download the file again.")
        shape = [int(size) for size in reversed(self._tensors[name].shape)]
        if shape[:1] != [self.config.num_experts]:
            raise UserError(
                f"{self.path}: tensor {name} has shape {shape}, but the metadata says that there"
                f" are {self.config.num_experts} experts. Download the file again."
            )

    def names(self) -> Collection[str]:
        """Every tensor there is, under its Hugging Face name."""
        return self._held.keys()

    def where(self, name: str) -> str:
        """The file, for errors."""
        return str(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in Hugging Face's order, which is the reverse of GGUF's."""
        held = self._held[name]
        shapes = {tuple(self._tensors[tensor].shape): tensor for tensor in held.tensors}
        if len(shapes) > 1:
            raise UserError(
                f"{self.path}: tensors {' and '.join(shapes.values())} have different shapes."
                " Download the file again."
            )
        shape = tuple(int(size) for size in reversed(next(iter(shapes))))
        if held.expert is not None:
            shape = shape[1:]
        if _flipped(held):
            shape = (*shape[:-2], *shape[:-3:-1])
        sizes = list(shape) or [0]  # a single number, which no model has
        sizes[0 if held.row is not None and held.row.together else -1] *= len(held.tensors)
        return tuple(sizes)

    def read(self, name: str, part: tuple[slice, ...]) -> np.ndarray:
        """A part of one tensor, dequantised to float32 (an expert, or whole), in Hugging Face's
        layout.

        Raises:
            UserError: for a quantisation that the `gguf` package cannot undo.
        """
        held = self._held[name]
        rows = slice(None)
        if held.expert is not None:
            rows = slice(held.expert, held.expert + 1)
        elif held.row is not None and held.row.of_experts:
            rows, part = part[0], (slice(None), *part[1:])
        parts = [self._restored(held, tensor, rows) for tensor in held.tensors]
        return (parts[0] if held.row is None else held.row.joined(parts))[part]

    def _restored(self, held: _Held, gguf_name: str, rows: slice) -> np.ndarray:
        """These rows of a tensor's first axis, without what llama.cpp's converter did to them."""
        tensor = self._dequantized(gguf_name, rows)
        row, family = held.row, family_of(self.config)
        if row is None:
            return tensor
        if held.expert is not None:
            tensor = tensor[0]
        if self._form.pairs and row.path[1:2] in (("query",), ("key",)):
            heads = self.config.num_heads if row.path[1] == "query" else self.config.num_kv_heads
            tensor = _unpermuted(tensor, heads)
        if row.of_norm and family.norm_offset:
            tensor = tensor - np.float32(family.norm_offset)
        return tensor.swapaxes(-1, -2) if _flipped(held) else tensor

    def _dequantized(self, gguf_name: str, rows: slice = slice(None)) -> np.ndarray:
        tensor = self._tensors[gguf_name]
        data = np.asarray(tensor.data)
        try:
            array = self._gguf.dequantize(data[rows] if data.ndim else data, tensor.tensor_type)
        except NotImplementedError as error:
            raise UserError(
                f"{self.path}: tensor {gguf_name} is stored as {tensor.tensor_type.name}, which"
                " cannot be undone. Choose another quantisation, such as Q8_0 or Q4_K_M."
            ) from error
        return np.asarray(array, np.float32)


def _flipped(held: _Held) -> bool:
    """Whether Hugging Face has [in, out] of it; llama.cpp has [out, in] of every kernel."""
    return held.row is not None and held.row.path[-1] == "kernel" and not held.row.transposed


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
