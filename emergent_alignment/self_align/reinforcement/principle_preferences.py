"""Preferences that the frozen model has by principle (SALMON, 2310.05910): two samples for each
prompt, compared by a handful of random principles, of which the strongest decides."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from emergent_alignment.data.messages import Message
from emergent_alignment.data.principles import Principle
from emergent_alignment.errors import UserError
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Batching, sample_shares
from emergent_alignment.parallel.hosts import gather_list, is_first, own_share
from emergent_alignment.progress import progress
from emergent_alignment.randomness import Purpose, key_for
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.self_align.answers.sampling import ROUND_BATCHES
from emergent_alignment.self_align.reinforcement.comparing import (
    AnswerPair,
    compare,
    draw_guidelines,
    strongest,
)
from emergent_alignment.self_align.reinforcement.preferences import Preference
from emergent_alignment.self_align.stages import StageRun
from emergent_alignment.storage.json_lines import append_json_lines
from emergent_alignment.storage.json_values import digest
from emergent_alignment.storage.shapes import FLAG, Number, Text

SAMPLES, COMPARED = "samples", "comparisons"
_SAMPLE = {"place": Number(0, whole=True), "text": Text(), "ended": FLAG}
_COMPARISON = {"place": Number(0, whole=True), "margins": [Number()]}
PER_PROMPT = 2
# Why a prompt gives no preference.
SAME, EMPTY_ANSWER, NEITHER = "same answer twice", "an empty answer", "no preference in both orders"


def preferences_by_principle(
    stage: StageRun, setup: Setup, prompts: Sequence[list[Message]], principles: Sequence[Principle]
) -> tuple[list[Preference], dict[str, int]]:
    """The preferences of `setup`'s model between two samples of its own for each prompt, and how
    many prompts give none, by reason. Both are kept in the stage's folder as they are made."""
    answers = _sampled(stage, setup, prompts)
    drawn = [
        draw_guidelines(
            principles, _wanted(stage).principles, _wanted(stage).negated_share, (seed, place)
        )
        for seed, place in zip([stage.config.seed] * len(prompts), range(len(prompts)))
    ]
    dropped: Counter = Counter()
    comparisons = {}
    for place, (one, other) in enumerate(answers):
        texts = one["text"], other["text"]
        if not all(texts) or texts[0] == texts[1]:
            dropped[SAME if all(texts) else EMPTY_ANSWER] += 1
            continue
        comparisons[place] = AnswerPair(prompts[place], *texts, drawn[place])
    margins = _compared(stage, setup, comparisons)
    preferences = []
    for place, comparison in comparisons.items():
        deciding = strongest(margins[place])
        margin = margins[place][deciding]
        if not margin:
            dropped[NEITHER] += 1
            continue
        pair = answers[place] if margin > 0 else answers[place][::-1]
        preferences.append(
            Preference(
                tuple(prompts[place]),
                pair[0]["text"],
                pair[1]["text"],
                (pair[0]["ended"], pair[1]["ended"]),
                tuple(guideline.text for guideline in comparison.guidelines),
                abs(margin),
            )
        )
    return preferences, {reason: dropped[reason] for reason in (SAME, EMPTY_ANSWER, NEITHER)}


def _wanted(stage: StageRun):
    return stage.config.self_align.reinforcement.preferences


def _sampled(stage: StageRun, setup: Setup, prompts: Sequence[list[Message]]) -> list[list[dict]]:
    """Two answers {"text", "ended"} to each prompt."""
    wanted, kept = _wanted(stage), stage.folder.kept
    _claim(stage, SAMPLES, {"prompts": list(prompts)})
    samples = {record["place"]: record for record in kept.records(SAMPLES, _SAMPLE)}
    rows = [setup.chat.prompt_tokens(p)[-stage.config.data.max_prompt_tokens :] for p in prompts]
    sampler = sampler_settings(
        setup.chat.end_tokens,
        wanted.max_new_tokens,
        temperature=wanted.temperature,
        top_p=wanted.top_p,
    )
    key = key_for(stage.config.seed, Purpose.COMPARED_ANSWERS)
    places = np.repeat(np.arange(len(prompts)), PER_PROMPT)
    with (
        progress("sampling answers to compare", shown=is_first()) as meter,
        kept.appending(SAMPLES) as file,
    ):
        meter(len(samples), len(places))
        for ids in _rounds(np.arange(len(places)), wanted.batch_size):
            if samples.keys() >= set(ids.tolist()):
                continue
            for index, answer in sample_shares(
                setup.model,
                setup.model.policy,
                setup.chat,
                [rows[places[i]] for i in ids],
                key,
                sampler,
                Batching(wanted.batch_size, stage.config.data.bucket_tokens, ids=ids),
            ):
                record = {"place": int(ids[index]), "text": answer.text, "ended": answer.ended}
                if record["place"] not in samples:
                    append_json_lines(file, [record])
                    samples[record["place"]] = record
                meter(len(samples), len(places))
    return [[samples[PER_PROMPT * i], samples[PER_PROMPT * i + 1]] for i in range(len(prompts))]


def _compared(
    stage: StageRun, setup: Setup, comparisons: dict[int, AnswerPair]
) -> dict[int, list[float]]:
    """The margins of each comparison, by its guidelines."""
    kept, size = stage.folder.kept, _wanted(stage).batch_size
    shown = [
        [place, one.first, one.second, [guideline.text for guideline in one.guidelines]]
        for place, one in comparisons.items()
    ]
    _claim(stage, COMPARED, {"comparisons": shown})
    compared = {
        record["place"]: record["margins"] for record in kept.records(COMPARED, _COMPARISON)
    }
    with (
        progress("comparing by principle", shown=is_first()) as meter,
        kept.appending(COMPARED) as file,
    ):
        meter(len(compared), len(comparisons))
        for places in _rounds(np.array(list(comparisons), int), size):
            if compared.keys() >= set(places.tolist()):
                continue
            own = own_share(places.tolist())
            margins = compare(
                setup,
                [comparisons[i] for i in own],
                batch_size=size,
                orders=_wanted(stage).orders,
            )
            for place, row in gather_list([list(pair) for pair in zip(own, margins)]):
                if place not in compared:
                    append_json_lines(file, [{"place": place, "margins": row}])
                    compared[place] = row
            meter(len(compared), len(comparisons))
    return compared


def _rounds(places: np.ndarray, batch_size: int) -> list[np.ndarray]:
    size = ROUND_BATCHES * batch_size
    return [places[start : start + size] for start in range(0, len(places), size)]


def _claim(stage: StageRun, part: str, content: dict) -> None:
    """The stage's own claim knows settings and model, but not what stands in the user's files."""
    identity = {"digest": digest(content)}
    if stage.folder.kept.is_others(part, identity):
        raise UserError(
            f"{stage.folder.kept.part_file(part)}: of other prompts or principles; bring the files "
            "back as they were, or choose another --workdir"
        )
    stage.folder.kept.claim(part, identity, overwrite=False)
