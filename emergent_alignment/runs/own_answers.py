"""The frozen copy's own answers to prompts, as targets that keep the policy as helpful as it was:
written once, and kept on disk for later runs."""

from pathlib import Path

import numpy as np

from emergent_alignment.data.messages import Message
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Answer, Batching, sample_shares
from emergent_alignment.parallel.hosts import anywhere, gather_list, is_first
from emergent_alignment.progress import progress
from emergent_alignment.randomness import NO_STEP, Purpose, key_for
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.storage.cache import cache_path
from emergent_alignment.storage.json_lines import read_json_lines, write_checked_lines
from emergent_alignment.storage.shapes import FLAG, Number, Text
from emergent_alignment.training.state import fingerprint

_KEPT = {
    "prompt": Number(0, whole=True),
    "tokens": [Number(0, whole=True)],
    "text": Text(),
    "ended": FLAG,
}


def own_answers(
    config: RunConfig, setup: Setup, prompts: list[list[Message]], label: str = "own answers"
) -> list[Answer]:
    """One answer of the frozen copy to each prompt, sampled as corrections are. Read from the
    first host's cache folder, or written there, whole or not at all; `label` is what progress is
    shown under."""
    path = answers_file(config, setup, prompts)
    records = list(read_json_lines(path, _KEPT, lambda where: None)) if is_first() else []
    if anywhere(len(records) == len(prompts)):
        records = gather_list(records)
    else:
        records = _written(config, setup, prompts, label)
        if is_first():
            write_checked_lines(path, records)
    nothing = np.zeros(0, np.float32)
    return [Answer(r["tokens"], nothing, r["text"], r["ended"]) for r in records]


def answers_file(config: RunConfig, setup: Setup, prompts: list[list[Message]]) -> Path:
    """Where answers are kept that depend on just these frozen parameters, prompts and settings."""
    sampling = config.sampling
    identity = {
        "own answers of": fingerprint(setup.model.params),
        "dtype": str(setup.model.dtype),
        "template": setup.chat.tokenizer.chat_template,
        "prompts": prompts,
        "max_prompt": config.data.max_prompt_tokens,
        "draws": [config.seed, Purpose.OWN_ANSWERS, NO_STEP],
        "sampling": [
            sampling.max_new_tokens,
            sampling.revision_temperature,
            sampling.revision_top_p,
        ],
    }
    return cache_path(config.conscience.cache, "own-answers", identity)


def _written(
    config: RunConfig, setup: Setup, prompts: list[list[Message]], label: str
) -> list[dict]:
    """What own_answers keeps of each answer, in the prompts' order."""
    sampling, limit = config.sampling, config.data.max_prompt_tokens
    sampler = sampler_settings(
        setup.chat.end_tokens,
        sampling.max_new_tokens,
        temperature=sampling.revision_temperature,
        top_p=sampling.revision_top_p,
    )
    records: dict[int, dict] = {}
    with progress(label, shown=is_first()) as meter:
        for index, answer in sample_shares(
            setup.model,
            setup.model.params,
            setup.chat,
            [setup.chat.prompt_tokens(prompt)[-limit:] for prompt in prompts],
            key_for(config.seed, Purpose.OWN_ANSWERS),
            sampler,
            Batching(config.conscience.batch_size, config.data.bucket_tokens),
        ):
            kept = {"tokens": answer.tokens, "text": answer.text, "ended": answer.ended}
            records[index] = {"prompt": index} | kept
            meter(len(records), len(prompts))
    return [records[index] for index in range(len(prompts))]
