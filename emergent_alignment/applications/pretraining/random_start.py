"""A model with random weights to train from raw text, and the tokenizer that it needs."""

from pathlib import Path

import jax
import jax.numpy as jnp

from emergent_alignment.applications.pretraining.corpus import Corpus
from emergent_alignment.applications.pretraining.settings import PretrainingConfig
from emergent_alignment.applications.pretraining.windows import trained_documents
from emergent_alignment.conscience.question import QUESTIONS
from emergent_alignment.data.chat import read_chat
from emergent_alignment.errors import UserError
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.export import write_safetensors
from emergent_alignment.models.gguf_file import GGUFFile
from emergent_alignment.models.loading import resolve
from emergent_alignment.models.model import Model, random_params
from emergent_alignment.models.placement import check_mesh, shardings_of
from emergent_alignment.models.plain_text import FEWEST_TOKENS, train_tokenizer
from emergent_alignment.models.tokenizer import load_tokenizer
from emergent_alignment.parallel.chips import check_platform
from emergent_alignment.randomness import Purpose, key_for
from emergent_alignment.runs.from_config import Setup, mesh_of
from emergent_alignment.runs.workdir import START
from emergent_alignment.storage.files import is_whole_folder


def random_start(config: PretrainingConfig, corpus: Corpus) -> Setup:
    """A model of the sizes in config.pretraining.random, a function of the config and the
    corpus alone. Raises UserError for sizes that do not go together."""
    check_platform(config.require_platform)
    tokenizer = _tokenizer(config, corpus)
    sizes = _sizes(config, len(tokenizer))
    mesh = mesh_of(config, sizes)
    check_mesh(mesh, sizes)
    params = _initial_params(config, sizes)
    if mesh is not None:
        params = jax.device_put(params, shardings_of(mesh, params))
    model = Model(sizes, tokenizer, params, START, jnp.dtype(config.model.dtype))
    return Setup(config, model, read_chat(tokenizer, START), mesh)


def write_start(model: Model, workdir: Path, config: PretrainingConfig) -> None:
    """Keep the model that a run starts from, whole or not at all, unless it is there already."""
    if not is_whole_folder(workdir / START):
        params = _initial_params(config, model.config)
        write_safetensors(workdir / START, model.config, params, model.tokenizer)


def _initial_params(config: PretrainingConfig, sizes: ModelConfig) -> dict:
    key = key_for(config.seed, Purpose.INITIAL_WEIGHTS)
    return random_params(sizes, key, jnp.dtype(config.model.param_dtype))


def _tokenizer(config: PretrainingConfig, corpus: Corpus):
    """BPE of the documents that training sees first, or the tokenizer of config.model.path."""
    num_tokens, settings = config.pretraining.random.vocabulary, config.pretraining
    if num_tokens:
        if num_tokens < FEWEST_TOKENS:
            raise UserError(
                f"config.pretraining.random.vocabulary: {num_tokens} tokens cannot hold the "
                f"bytes and the answer words; set at least {FEWEST_TOKENS}, or 0 for the "
                "tokenizer of config.model.path"
            )
        words = {
            word
            for question in QUESTIONS.values()
            for word in (*question.approving, *question.disapproving)
        }
        documents = trained_documents(corpus, settings.block_documents, settings.heldout_share)
        texts = (document.text for document in documents)
        return train_tokenizer(texts, num_tokens, words=tuple(sorted(words)))
    path = resolve(config.model.path)
    source = GGUFFile(path) if path.suffix == ".gguf" else path
    return load_tokenizer(source, chat_template=config.model.chat_template or None)


def _sizes(config: PretrainingConfig, num_tokens: int) -> ModelConfig:
    sizes = config.pretraining.random
    if sizes.width % sizes.heads:
        raise UserError(
            f"config.pretraining.random.heads: {sizes.heads} does not divide width {sizes.width}"
        )
    return ModelConfig(
        family="llama",
        vocab_size=num_tokens,
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        num_kv_heads=sizes.kv_heads,
        head_dim=sizes.width // sizes.heads,
        tie_embeddings=True,
        max_positions=max(config.pretraining.window_tokens, config.conscience.max_review_tokens),
    ).checked("config.pretraining.random")
