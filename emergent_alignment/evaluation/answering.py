"""Sampling an evaluation's answers into a folder, so that a killed evaluation goes on.

An answer depends on the seed and on its place alone (a named tuple, such as question, wording and
number): neither on the batch, nor on what else is asked, nor on where a killed evaluation goes on.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from emergent_alignment.data.messages import Message
from emergent_alignment.evaluation.answer_records import (
    ANSWER_RECORD,
    ANSWERS,
    Place,
    place_of,
    place_shape,
)
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Batching, sample_answers
from emergent_alignment.models.model import Model
from emergent_alignment.randomness import Purpose, key_for
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.json_lines import append_json_lines
from emergent_alignment.training.state import fingerprint


class Answering(Protocol):
    """A section that says how answers are sampled."""

    max_new_tokens: int
    temperature: float
    top_p: float


def sampling_identity(config: EvaluationConfig, settings: Answering, model: Model) -> dict:
    """What decides an answer, beside its place and what is asked there."""
    return {
        "model": model.source,
        "parameters": fingerprint(model.params),
        "adapters": fingerprint(model.adapters) if model.adapters is not None else None,
        "seed": config.seed,
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
    }


def sample_missing(
    config: EvaluationConfig,
    settings: Answering,
    setup: Setup,
    wanted: Mapping[Place, list[Message]],
    folder: GrowingFolder,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Place, dict]:
    """The record of every place, in the order of `wanted`; those that answers.jsonl lacks are
    sampled and appended as they come.

    Raises UserError before anything is sampled where the chat template refuses a conversation, or
    drops its system message.
    """
    kind = type(next(iter(wanted)))
    shape = place_shape(kind) | ANSWER_RECORD
    records = {place_of(kind, record): record for record in folder.records(ANSWERS, shape)}
    missing = [place for place in wanted if place not in records]
    prompts = [setup.chat.prompt_tokens(wanted[place]) for place in missing]
    done = len(wanted) - len(missing)
    sampled = sample_answers(
        setup.model,
        setup.model.policy,
        setup.chat,
        prompts,
        key_for(config.seed, Purpose.EVALUATED_ANSWERS),
        sampler_settings(
            setup.chat.end_tokens,
            settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        ),
        Batching(
            config.conscience.batch_size,
            config.data.bucket_tokens,
            ids=np.array([_row_id(place) for place in missing], np.int32),
        ),
    )
    with folder.appending(ANSWERS) as file:
        for count, (i, answer) in enumerate(sampled if missing else (), 1):
            record = missing[i]._asdict() | {
                "messages": wanted[missing[i]],
                "answer": answer.text,
                "num_tokens": len(answer.tokens),
                "ended": answer.ended,
            }
            append_json_lines(file, [record])
            records[missing[i]] = record
            progress(done + count, len(wanted))
    return {place: records[place] for place in wanted}


def _row_id(place: Place) -> int:
    """A number below 2³¹ that stands for this place among those of all evaluations, whose places
    have other fields."""
    text = repr(place._asdict())
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1
