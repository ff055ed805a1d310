"""Training from raw text: next tokens of packed windows, from a checkpoint or from random weights;
on a share of the windows the policy's own continuations are reviewed and make pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from emergent_alignment.applications.pretraining.corpus import Corpus, open_corpus
from emergent_alignment.applications.pretraining.documents import RawText, read_raw_text
from emergent_alignment.applications.pretraining.random_start import random_start, write_start
from emergent_alignment.applications.pretraining.reviewed_text import (
    ReviewedText,
    TakenCopies,
    review_windows,
)
from emergent_alignment.applications.pretraining.settings import PretrainingConfig
from emergent_alignment.applications.pretraining.view import WindowView
from emergent_alignment.applications.pretraining.windows import Packing, PackingSettings, TextBatch
from emergent_alignment.data.examples import Example
from emergent_alignment.data.sources import load_examples
from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first, together
from emergent_alignment.parallel.rows import own_rows
from emergent_alignment.parallel.sharding import num_shards
from emergent_alignment.runs.from_config import Setup, check_rows, conscience_settings, load_model
from emergent_alignment.runs.listening_inputs import Listening, check_heard, read_pool
from emergent_alignment.runs.training_run import Run, Training, hybrid_terms, train
from emergent_alignment.runs.workdir import START, decided_in
from emergent_alignment.settings import changed, check_settings
from emergent_alignment.storage.files import is_whole_folder
from emergent_alignment.storage.json_values import digest
from emergent_alignment.training.loop import MakeInput, StepInput
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.state import TrainState


def pretrain(
    config: PretrainingConfig,
    workdir: Path,
    *,
    setup: Setup | None = None,
    name: str = "training",
    profiled: range = range(0),
) -> TrainState:
    """Train on raw text as the config says; see `training_run.train` for what a run is.

    Returns the last state. Raises UserError before anything is trained where the input is not
    right, and Stopped where a process was asked to stop (the state is saved).
    """
    with together():
        config = decided_in(workdir, config)
        check_settings(config)
        _check_pretraining(config)
        matched = []
        if config.conscience.enabled:
            conscience_settings(config)
            matched = load_examples(config.pretraining.matched, ignored=config.data.ignored)
        corpus = corpus_of(config)
        setup = _setup(config, workdir, corpus, setup)
        check_rows(config, setup.mesh)
        check_heard(config, setup.mesh, num_reviewed(config))
        _check_setup(config, setup)
        packing = packing_of(config, corpus, setup.chat)
        data = _data_digits(corpus, packing, setup.chat)
        note = f"{config.pretraining.corpus}: {packing.summary()}"

    def inputs(run: Run[PretrainingConfig]) -> MakeInput:
        packing.remember(workdir / "blocks.json", data, writes=is_first())
        if config.pretraining.random.layers and is_first():
            write_start(setup.model, workdir, config)
        return _inputs(run, workdir, packing, matched)

    objective = Objective(hybrid_terms(config.loss), WindowView)
    training = Training(data, inputs, objective, notes=(note,))
    return train(config, workdir, setup, training, name=name, profiled=profiled)


def corpus_of(config: PretrainingConfig) -> Corpus:
    """The corpus that a config names. Raises UserError where there is none."""
    settings = config.pretraining
    return open_corpus(
        settings.corpus,
        split=config.data.train_split,
        column=settings.text_column,
        limit=config.data.limit,
    )


def packing_of(config: PretrainingConfig, corpus: Corpus, chat: RawText) -> Packing:
    """The windows of a corpus, in the tokens of the model."""
    settings = config.pretraining
    return Packing(
        corpus,
        chat.document_tokens,
        PackingSettings(
            settings.window_tokens, settings.block_documents, settings.heldout_share, config.seed
        ),
    )


def _data_digits(corpus: Corpus, packing: Packing, chat: RawText) -> str:
    """16 hex digits that say which windows a run trains on, in which order."""
    tokenizer = chat.tokenizer.backend_tokenizer.to_str()
    return digest([corpus.identity, vars(packing.settings), tokenizer])


def _setup(config: PretrainingConfig, workdir: Path, corpus: Corpus, given: Setup | None) -> Setup:
    """The model that training starts from, with a chat that knows documents: `given`, or read
    here. Random weights and their tokenizer are made once, and then read from the work
    directory, whatever is given."""
    if not config.pretraining.random.layers:
        setup = given or load_model(config)
    elif is_whole_folder(workdir / START):
        kept = changed(config, {"model.path": str(workdir / START)})
        setup = replace(load_model(kept), config=config)
    else:
        setup = random_start(config, corpus)
    return replace(setup, chat=read_raw_text(setup.model.tokenizer, config.model.path))


def _inputs(
    run: Run[PretrainingConfig], workdir: Path, packing: Packing, matched: list[Example]
) -> MakeInput:
    rows, reviewed = run.config.training.batch_size, num_reviewed(run.config)
    copies = TakenCopies(run, workdir, matched) if reviewed else None
    listening = Listening(run, reviewed, read_pool(run.config, run.setup.chat))

    def make_input(step: int, trainable) -> StepInput:
        windows = packing.windows(step * rows, rows)
        reviewed_text = ReviewedText(None, [], {})
        if copies is not None:
            # Windows come in an order drawn at random: the first ones are a random share.
            shown = windows.rows(np.arange(reviewed))
            reviewed_text = review_windows(
                run, copies, listening, shown, step * rows, step, trainable
            )
        batch = TextBatch(windows.rows(own_rows(rows)), reviewed_text.batch)
        told = reviewed_text.records, reviewed_text.scalars, reviewed_text.weights
        return StepInput(batch, *told)

    return make_input


def num_reviewed(config: PretrainingConfig) -> int:
    """Windows a step whose prefix the policy continues."""
    if not config.conscience.enabled:
        return 0
    return round(config.pretraining.review_share * config.training.batch_size)


def _check_pretraining(config: PretrainingConfig) -> None:
    """Raise UserError for settings that do not go together."""
    if config.conscience.enabled and config.conscience.candidate != "policy":
        raise UserError(
            "config.conscience.candidate: of raw text the policy's own continuations are "
            "reviewed; set policy"
        )
    if config.conscience.enabled and not num_reviewed(config):
        raise UserError(
            f"config.pretraining.review_share: {config.pretraining.review_share} of "
            f"{config.training.batch_size} windows a step is none; set a larger share, or "
            "config.conscience.enabled=False"
        )
    if config.pretraining.random.layers and config.lora.rank:
        raise UserError(
            "config.lora.rank: adapters beside random weights learn next to nothing; set 0, "
            "which trains all parameters"
        )
    if config.pretraining.random.layers and config.loss.kl_weight:
        raise UserError(
            "config.loss.kl_weight: it would hold the policy to the random weights that it starts "
            "from; set 0"
        )
    if config.model.frozen_dtype and not config.lora.rank:
        raise UserError(
            "config.model.frozen_dtype: frozen copies of raw text's full training are held as "
            'the policy is; set "", or train adapters (config.lora.rank)'
        )


def _check_setup(config: PretrainingConfig, setup: Setup) -> None:
    """Raise UserError where the model or the mesh does not fit the windows."""
    size, longest = config.pretraining.window_tokens, setup.model.config.longest_row
    if size > longest:
        raise UserError(
            f"config.pretraining.window_tokens: {size} is more than the {longest} positions of "
            f"the model; set at most {longest}"
        )
    shards = num_shards(setup.mesh, "batch")
    unit, reviewed = shards * config.training.accumulation, num_reviewed(config)
    if reviewed % unit:
        raise UserError(
            f"config.pretraining.review_share: {reviewed} reviewed windows a step cannot be cut "
            f"into {shards} shards × {config.training.accumulation} microbatches; set a share "
            f"of batch_size that {unit} divides"
        )
