"""How well a model predicts the documents that training from raw text held out, beside a bigram
model of the documents that it was trained on."""

import functools
import itertools

import jax
import numpy as np

from emergent_alignment.applications.pretraining.corpus import Corpus
from emergent_alignment.applications.pretraining.documents import RawText, read_raw_text
from emergent_alignment.applications.pretraining.training import corpus_of
from emergent_alignment.applications.pretraining.view import window_log_probs
from emergent_alignment.applications.pretraining.windows import (
    Windows,
    held_out_documents,
    pack,
    trained_documents,
)
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.bigram import best_bigram_loss, count_bigrams
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.runs.training_run import step_settings
from emergent_alignment.training.step_settings import StepSettings


def evaluate_corpus(config: EvaluationConfig, trained: Setup) -> dict:
    """Held-out loss in nats a next token, of the model and of the bigram, over the same tokens.

    The bigram counts the first block of documents that training reads (all of a small corpus).
    `config.evaluation.limit` takes that many windows; 0 takes all of the held-out documents of
    that block. Raises UserError where none are held out, or less than one window of them.
    """
    corpus, chat = corpus_of(config), read_raw_text(trained.model.tokenizer, trained.model.source)
    held_out, seen = _held_out(config, corpus, chat), _trained(config, corpus, chat)
    predicted = int(held_out.predicts.sum())
    counted = count_bigrams(seen, trained.model.config.vocab_size)
    bigram, strength = best_bigram_loss(counted, held_out)
    loss = _loss(config, trained, held_out)
    return {
        "corpus": config.pretraining.corpus,
        "held_out_windows": len(held_out),
        "held_out_tokens": predicted,
        "loss": loss,
        "bigram_loss": bigram,
        "bigram_tokens": int(seen.predicts.sum()),
        "bigram_strength": strength,
    }


def _held_out(config: EvaluationConfig, corpus: Corpus, chat: RawText) -> Windows:
    settings = config.pretraining
    most = round(settings.block_documents * settings.heldout_share)
    documents = list(itertools.islice(held_out_documents(corpus, settings.heldout_share), most))
    windows = pack(chat.document_tokens(documents), settings.window_tokens)
    if not windows.predicts.any():
        raise UserError(
            f"config.pretraining.heldout_share: of {settings.corpus} a share of "
            f"{settings.heldout_share} holds out no documents; nothing can be measured on it"
        )
    limit = config.evaluation.limit
    return windows.rows(np.arange(min(limit, len(windows)))) if limit else windows


def _trained(config: EvaluationConfig, corpus: Corpus, chat: RawText) -> Windows:
    settings = config.pretraining
    documents = trained_documents(corpus, settings.block_documents, settings.heldout_share)
    return pack(chat.document_tokens(documents), settings.window_tokens)


def _loss(config: EvaluationConfig, trained: Setup, windows: Windows) -> float:
    """Nats a token of the model, batch by batch; the last batch is filled up with padding."""
    rows, total = config.training.batch_size, 0.0
    settings = step_settings(config, trained)
    with in_force(trained.mesh), progress("held-out windows") as meter:
        for start in range(0, len(windows), rows):
            places = np.arange(start, min(start + rows, len(windows)))
            part = windows.rows(np.resize(places, rows))
            log_probs = np.asarray(_log_probs(settings, trained.model.policy, part))[: len(places)]
            total -= log_probs[part.predicts[: len(places)]].sum(dtype=np.float64)
            meter(start + len(places), len(windows))
    return float(total / windows.predicts.sum())


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(settings: StepSettings, params: dict, windows: Windows) -> jax.Array:
    return window_log_probs(settings, params, windows)
