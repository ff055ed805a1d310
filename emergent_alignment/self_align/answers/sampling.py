"""Sampling stage 2's answers into the stage's folder, so that a killed stage goes on.

The long beginning that all prompts share is read once. Rounds of the same instructions are sampled
together whatever was there before, so that a stage that goes on makes the same bits.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator

import numpy as np

from emergent_alignment.data.batches import split_beginning
from emergent_alignment.errors import UserError
from emergent_alignment.generation.prefill import Prompts
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Batching, read_beginning, sample_shares
from emergent_alignment.parallel.hosts import is_first
from emergent_alignment.progress import progress
from emergent_alignment.randomness import Purpose, key_for
from emergent_alignment.self_align.stages import StageRun
from emergent_alignment.storage.json_lines import append_json_lines
from emergent_alignment.storage.shapes import FLAG, Number, Text

_PART = "answers"
_COUNT = Number(0, whole=True)
_KEPT = {"place": _COUNT, "text": Text(), "ended": FLAG, "tokens": _COUNT}
ROUND_BATCHES = 8  # of a batch's size: what a kill loses at most


def sampled_answers(
    stage: StageRun,
    prompts: Iterable[list[int]],
    purpose: Purpose = Purpose.PRINCIPLED_ANSWERS,
) -> list[dict]:
    """{"place", "text", "ended", "tokens"} for every prompt; those that answers.jsonl has are
    read, the others sampled and appended as they come.

    Raises UserError where a prompt and its answer are longer than the model's positions.
    """
    settings, kept = stage.config.self_align.answers, stage.folder.kept
    beginning, rests = split_beginning(prompts)
    _check_lengths(stage, len(beginning), rests)
    _claim(stage, beginning, rests)
    answers = {record["place"]: record for record in kept.records(_PART, _KEPT)}
    rounds = [places for places in _rounds(rests, settings) if not answers.keys() >= {*places}]
    with (
        progress("answering", shown=is_first()) as meter,
        kept.appending(_PART) as file,
    ):
        meter(len(answers), len(rests))
        before = _read(stage, beginning) if rounds and beginning else None
        for places in rounds:
            for record in _sampled(stage, before, rests, places, purpose):
                if record["place"] not in answers:
                    append_json_lines(file, [record])
                    answers[record["place"]] = record
                meter(len(answers), len(rests))
    return [answers[place] for place in range(len(rests))]


def _sampled(
    stage: StageRun,
    before: Prompts | None,
    rests: list[list[int]],
    places: list[int],
    purpose: Purpose,
) -> Iterator[dict]:
    settings, setup = stage.config.self_align.answers, stage.setup
    sampler = sampler_settings(
        setup.chat.end_tokens,
        settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )
    for index, answer in sample_shares(
        setup.model,
        setup.model.policy,
        setup.chat,
        [rests[place] for place in places],
        key_for(stage.config.seed, purpose),
        sampler,
        Batching(settings.batch_size, stage.config.data.bucket_tokens, ids=np.array(places)),
        before=before,
    ):
        yield {
            "place": places[index],
            "text": answer.text,
            "ended": answer.ended,
            "tokens": len(answer.tokens),
        }


def _read(stage: StageRun, beginning: list[int]) -> Prompts:
    model, step = stage.setup.model, stage.config.data.bucket_tokens
    return read_beginning(model, model.policy, beginning, width_step=step)


def _check_lengths(stage: StageRun, beginning: int, rests: list[list[int]]) -> None:
    most = stage.setup.model.config.longest_row
    limit = stage.config.self_align.answers.max_new_tokens
    longest = beginning + max(map(len, rests), default=0) + limit
    if most and longest > most:
        raise UserError(
            f"config.self_align.answers: the longest prompt and answer take {longest} tokens, and "
            f"{stage.setup.model.source} was made for {most}; shorten principles or examples, or "
            "lower max_new_tokens"
        )


def _rounds(rests, settings) -> list[list[int]]:
    """Places in rounds, rows of like length together."""
    order = sorted(range(len(rests)), key=lambda place: (len(rests[place]), place))
    size = ROUND_BATCHES * settings.batch_size
    return [order[start : start + size] for start in range(0, len(order), size)]


def _claim(stage: StageRun, beginning: list[int], rests: list[list[int]]) -> None:
    """The stage's own claim knows settings, files and model, but not what this version of the
    package makes prompts of them with."""
    digest = hashlib.sha256()
    for tokens in (beginning, *rests):
        digest.update(json.dumps(tokens).encode())
    identity = {"prompts": digest.hexdigest()[:16]}
    if stage.folder.kept.is_others(_PART, identity):
        raise UserError(
            f"{stage.folder.kept.part_file(_PART)}: answers to other principles, examples or "
            "instructions; bring the files back as they were, or choose another --workdir"
        )
    stage.folder.kept.claim(_PART, identity, overwrite=False)
