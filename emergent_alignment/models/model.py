"""`Model`: what `load` returns. A description, a tokenizer, parameters, and pure functions.

The NNX module is split once, here; from then on parameters are plain pytrees.
"""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from emergent_alignment.errors import UserError
from emergent_alignment.losses import token_kl, token_log_probs, token_log_probs_and_entropy
from emergent_alignment.models.attention import AttentionPlan, causal_plan
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.decoder import Decoder
from emergent_alignment.models.export import write_peft, write_safetensors
from emergent_alignment.models.frozen import dequantised, is_int8
from emergent_alignment.models.loading import read_model
from emergent_alignment.models.lora import LoraConfig, attach, merge
from emergent_alignment.models.placement import check_mesh, read_shards
from emergent_alignment.parallel.sharding import over_rows


@functools.lru_cache(maxsize=32)
def _abstract(config: ModelConfig, scaled: bool):
    module = nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0), scaled=scaled))
    return nnx.split(module)


def forward(
    config: ModelConfig,
    params: dict,
    tokens: Int[Array, "batch tokens"],
    positions: Int[Array, "batch tokens"],
    plan: AttentionPlan,
    *,
    carry: Any = None,
    dtype: jnp.dtype = jnp.float32,
    remat: str = "none",
) -> tuple[Float[Array, "batch tokens width"], Any]:
    """The decoder as a pure function of its parameters: (final hidden states, plan's carry)."""
    graph, abstract = _abstract(config, is_int8(params))
    base = {name: value for name, value in params.items() if name != "adapters"}
    state = jax.tree.map(lambda leaf: leaf, abstract)
    nnx.replace_by_pure_dict(state, base)
    module = nnx.merge(graph, state)
    adapters = params.get("adapters")
    return module(tokens, positions, plan, carry=carry, adapters=adapters, dtype=dtype, remat=remat)


def answer_log_probs(
    params: dict,
    hidden: Float[Array, "batch tokens width"],
    targets: Int[Array, "batch tokens"],
    *,
    chunk_size: int | None,
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "batch tokens"]:
    """losses.token_log_probs of the model's vocabulary. On a mesh each shard of rows takes its
    own tokens through it, `chunk_size` at a time, and the gradients of the unembedding are
    added up once, not for each chunk."""

    return _over_vocabulary(token_log_probs, params, hidden, targets, chunk_size, dtype)


def answer_log_probs_and_entropy(
    params: dict,
    hidden: Float[Array, "batch tokens width"],
    targets: Int[Array, "batch tokens"],
    *,
    chunk_size: int | None,
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "batch tokens 2"]:
    """losses.token_log_probs_and_entropy, shard by shard as `answer_log_probs`."""

    return _over_vocabulary(token_log_probs_and_entropy, params, hidden, targets, chunk_size, dtype)


def _over_vocabulary(measure, params, hidden, targets, chunk_size, dtype) -> Array:
    def of_shard(matrix, hidden, targets):
        return measure(hidden, matrix, targets, chunk_size=chunk_size)

    return over_rows(of_shard, num_replicated=1)(unembedding(params, dtype), hidden, targets)


def answer_kl(
    params: dict,
    hidden: Float[Array, "batch tokens width"],
    frozen: dict,
    frozen_hidden: Float[Array, "batch tokens width"],
    *,
    chunk_size: int | None,
    dtype: jnp.dtype = jnp.float32,
) -> Float[Array, "batch tokens"]:
    """losses.token_kl of a policy from its frozen copy, shard by shard as `answer_log_probs`."""

    def of_shard(matrix, frozen_matrix, hidden, frozen_hidden):
        return token_kl(hidden, matrix, frozen_hidden, frozen_matrix, chunk_size=chunk_size)

    matrices = unembedding(params, dtype), unembedding(frozen, dtype)
    return over_rows(of_shard, num_replicated=2)(*matrices, hidden, frozen_hidden)


def unembedding(params: dict, dtype: jnp.dtype = jnp.float32) -> Float[Array, "width vocabulary"]:
    """The matrix from hidden states to logits: the tied embedding's transpose, or its own."""
    matrix = params["unembedding"] if "unembedding" in params else params["embedding"].T
    return matrix.astype(dtype)


def random_params(
    config: ModelConfig, seed: int | Key[Array, ""] = 0, dtype: jnp.dtype = jnp.float32
) -> dict:
    """Parameters of an untrained model: normal(0, 0.02) matrices, unit norms, zero biases; drawn
    from a seed of their own, or from a key."""
    state = nnx.state(Decoder(config, nnx.Rngs(seed)))
    return jax.tree.map(lambda leaf: leaf.astype(dtype), nnx.to_pure_dict(state))


@dataclass(frozen=True)
class Model:
    """A loaded language model.

    config      sizes and family, from the checkpoint
    tokenizer   a transformers fast tokenizer with the model's own chat template
    params      the base parameters, a plain nested dict of arrays
    source      where it came from, as the user named it
    dtype       compute dtype
    lora        settings of `adapters`, where there are any
    adapters    {"query": {"a", "b"}, …} beside the base, or None
    """

    config: ModelConfig
    tokenizer: Any
    params: dict
    source: str = ""
    dtype: Any = jnp.float32
    lora: LoraConfig | None = None
    adapters: dict | None = None

    @property
    def policy(self) -> dict:
        """The parameters to compute with: the base, with the adapters (if any) attached."""
        return attach(self.params, self.adapters, self.lora)

    def hidden(
        self,
        params: dict,
        tokens: Int[Array, "batch tokens"],
        positions: Int[Array, "batch tokens"] | None = None,
        *,
        segments: Int[Array, "batch tokens"] | None = None,
    ) -> Float[Array, "batch tokens width"]:
        """Final hidden states of causal rows; positions count from 0 unless given."""
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        plan = causal_plan(positions, segments)
        return forward(self.config, params, tokens, positions, plan, dtype=self.dtype)[0]

    def logits(
        self, params: dict, hidden: Float[Array, "*tokens width"]
    ) -> Float[Array, "*tokens vocabulary"]:
        """float32 logits; raw, before any temperature."""
        matrix = unembedding(params, self.dtype)
        return jnp.matmul(hidden, matrix, preferred_element_type=jnp.float32)

    def merged(self) -> "Model":
        """The same model with its adapters added into the kernels; int8 ones become float32."""
        params = dequantised(self.params)
        if self.adapters is not None:
            params = merge(params, self.adapters, self.lora)
        return replace(self, params=params, lora=None, adapters=None)


def load(
    path_or_id: str,
    *,
    dtype: jnp.dtype = jnp.float32,
    param_dtype: jnp.dtype | None = None,
    chat_template: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Model:
    """A `Model` from a directory or hub id of safetensors, or a .gguf file.

    `dtype` is the compute dtype; parameters are held in `param_dtype` (default: the same).
    `chat_template` is a Jinja template, or the path of one, for tokenizers without their own.
    With a `mesh` (parallel/mesh.py) each device holds its part, and each host reads no more than
    its devices' parts; compute under `jax.set_mesh(mesh)`, so that activations are cut, too.
    Raises UserError with one line where the model cannot be read, or the mesh does not fit it.
    """
    place = None if mesh is None else functools.partial(read_shards, mesh)
    config, params, tokenizer = read_model(
        path_or_id,
        dtype=param_dtype or dtype,
        chat_template=chat_template,
        check=functools.partial(check_mesh, mesh),
        place=place,
    )
    return Model(config, tokenizer, params, source=str(path_or_id), dtype=dtype)


def export(model: Model, directory: Path | str, *, format: str = "safetensors") -> Path:
    """Write a model for others to load; refuses a directory that holds anything.

    `safetensors` writes config, tokenizer and weights (adapters merged in) as `transformers`
    loads them; `peft` writes the adapters alone, as `peft` loads them beside the base.

    Raises UserError for a directory in use, and where `peft` is asked for without adapters.
    """
    if format == "safetensors":
        merged = model.merged()
        return write_safetensors(directory, merged.config, merged.params, merged.tokenizer)
    if format != "peft":
        raise UserError(f"format {format!r} is unknown; known: safetensors, peft")
    if model.adapters is None:
        raise UserError("there are no adapters to export as peft; use format safetensors")
    return write_peft(
        directory,
        model.config,
        model.adapters,
        rank=model.lora.rank,
        alpha=model.lora.alpha,
        rank_stabilized=model.lora.rank_stabilized,
        base_name=model.source,
    )
