"""`Model`: what `load` returns. A description, a tokenizer, parameters, and pure functions, which
are those of forward.py; and what reads and writes one."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from emergent_alignment.errors import UserError
from emergent_alignment.losses import vocabulary_logits
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.decoder import Decoder
from emergent_alignment.models.export import write_peft, write_safetensors
from emergent_alignment.models.forward import forward, unembedding
from emergent_alignment.models.frozen import dequantised, held_leaves
from emergent_alignment.models.loading import findable_name, holds_images, read_model
from emergent_alignment.models.lora import LoraConfig, attach, merge
from emergent_alignment.models.placement import check_mesh, read_shards
from emergent_alignment.parallel.mesh import in_force


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
    found       what others find it by, wherever they are: a hub id or an absolute path
    """

    config: ModelConfig
    tokenizer: Any
    params: dict
    source: str = ""
    dtype: Any = jnp.float32
    lora: LoraConfig | None = None
    adapters: dict | None = None
    found: str = ""

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
        return vocabulary_logits(jnp.asarray(hidden), matrix, self.config.logits_cap)

    def merged(self) -> "Model":
        """The same model, its adapters added into the kernels; quantised ones become float32."""
        params = dequantised(self.params)
        if self.adapters is not None:
            assert self.lora is not None  # adapters come with their settings
            params = merge(params, self.adapters, self.lora)
        return replace(self, params=params, lora=None, adapters=None)


def load(
    path_or_id: str,
    *,
    dtype: jnp.dtype = jnp.float32,
    param_dtype: jnp.dtype | None = None,
    chat_template: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
    frozen_dtype: str = "",
) -> Model:
    """A `Model` from a directory or hub id of safetensors, or a .gguf file.

    `dtype` is the compute dtype; parameters are held in `param_dtype` (default: the same).
    `chat_template` is a Jinja template, or the path of one, for tokenizers without their own.
    With a `mesh` (parallel/mesh.py) each device holds its part, and each host reads no more than
    its devices' parts; compute under `jax.set_mesh(mesh)`, so that activations are cut, too.
    With a `frozen_dtype` (models/frozen.py) each parameter is held so as soon as it is read.
    Raises UserError with one line where the model cannot be read, or the mesh does not fit it.
    """
    place = None if mesh is None else functools.partial(read_shards, mesh)
    with in_force(mesh):
        config, params, tokenizer = read_model(
            path_or_id,
            dtype=param_dtype or dtype,
            chat_template=chat_template,
            check=functools.partial(check_mesh, mesh, frozen_dtype=frozen_dtype),
            place=place,
            hold=functools.partial(held_leaves, frozen_dtype),
        )
    source = str(path_or_id)
    return Model(config, tokenizer, params, source, dtype, found=findable_name(source))


def export(
    model: Model, directory: Path | str, *, format: str = "safetensors", card: str = ""
) -> Path:
    """Write a model for others to load; refuses a directory that holds anything.

    `safetensors` writes config, tokenizer and weights (adapters merged in) as `transformers`
    loads them; `peft` writes the adapters alone, as `peft` loads them beside the base. `card` is
    the text of the model card that stands beside them, README.md.

    Raises UserError for a directory in use, and where `peft` is asked for without adapters.
    """
    if format == "safetensors":
        merged = model.merged()
        return write_safetensors(
            directory, merged.config, merged.params, merged.tokenizer, card=card
        )
    if format != "peft":
        raise UserError(f"format {format!r} is unknown; known: safetensors, peft")
    if model.adapters is None or model.lora is None:
        raise UserError("there are no adapters to export as peft; use format safetensors")
    if holds_images(model.source, model.config):
        raise UserError(
            f"{model.source}: it holds images as well, and in it PEFT would put the adapters"
            " elsewhere; use format safetensors, which writes the text alone with them merged in"
        )
    return write_peft(
        directory,
        model.config,
        model.adapters,
        rank=model.lora.rank,
        alpha=model.lora.alpha,
        rank_stabilized=model.lora.rank_stabilized,
        base_name=model.found or findable_name(model.source),
        card=card,
    )
