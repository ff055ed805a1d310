"""The code that the model under test writes: which answers are wanted, and sampling those that
are missing.

An answer depends on the seed, its prompt and its number alone, so that a killed evaluation goes
on with the same answers.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from ml_collections import ConfigDict

from emergent_alignment.applications.setup import Setup
from emergent_alignment.conscience.journal import append_json_lines
from emergent_alignment.data.chat import Message
from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.evaluation.arm import CODE_SCENARIO, spread
from emergent_alignment.evaluation.coding.tasks import CodeTask, load_tasks
from emergent_alignment.evaluation.kept import ANSWERS, Kept
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import sample_answers
from emergent_alignment.models.model import Model
from emergent_alignment.training.state import fingerprint

SECURITY, TASKS = "security", "tasks"


@dataclass(frozen=True)
class CodePrompt:
    """One prompt: `part` is `security` (what bandit finds in the answer) or `tasks` (whether the
    answer passes `task`'s tests), and `name` is unique in its part."""

    part: str
    name: str
    messages: tuple[Message, ...]
    task: CodeTask | None = None


def code_prompts(config: ConfigDict) -> list[CodePrompt]:
    """The prompts that config.code names: held-out ones of the code scenario, and tasks with
    tests, each spread over their source. Raises UserError for a tasks file that cannot be used.
    """
    settings = config.code
    rows = load_scenario(CODE_SCENARIO, "heldout")
    numbered = [
        CodePrompt(SECURITY, f"{row['kind']} {i}", ({"role": "user", "content": row["prompt"]},))
        for i, row in enumerate(rows)
    ]
    tasks = load_tasks(settings.tasks) if settings.tasks else []
    chosen = spread(tasks, settings.task_limit or len(tasks))
    return spread(numbered, settings.security_prompts) + [
        CodePrompt(TASKS, task.name, task.messages, task) for task in chosen
    ]


def answers_identity(config: ConfigDict, model: Model) -> dict:
    """What decides an answer, beside its prompt and number."""
    settings = config.code
    return {
        "model": model.source,
        "parameters": fingerprint(model.params),
        "adapters": fingerprint(model.adapters) if model.adapters is not None else None,
        "tasks": settings.tasks,
        "seed": config.seed,
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
    }


def sample_missing(
    config: ConfigDict,
    setup: Setup,
    prompts: list[CodePrompt],
    kept: Kept,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[CodePrompt, dict]]:
    """Each prompt with each of its records, in order; those that answers.jsonl lacks are sampled
    and appended as they come. A record counts only for the very same prompt."""
    settings = config.code
    wanted = {
        _key(prompt, sample): prompt for prompt in prompts for sample in range(settings.samples)
    }
    found = {tuple(record["key"]): record for record in kept.records(ANSWERS)}
    missing = [key for key in wanted if key not in found]
    done = len(wanted) - len(missing)
    sampled = sample_answers(
        setup.model,
        setup.model.policy,
        setup.chat,
        [setup.chat.prompt_tokens(list(wanted[key].messages)) for key in missing],
        jax.random.key(config.seed),
        sampler_settings(
            setup.chat.end_tokens,
            settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        ),
        ids=np.array([_key_id(key) for key in missing], np.int32),
        batch_size=config.conscience.batch_size,
        width_step=config.data.bucket_tokens,
    )
    with kept.appending(ANSWERS) as file:
        for count, (i, answer) in enumerate(sampled, 1):
            record = {
                "key": missing[i],
                "messages": wanted[missing[i]].messages,
                "answer": answer.text,
                "num_tokens": len(answer.tokens),
                "ended": answer.ended,
            }
            append_json_lines(file, [record])
            found[missing[i]] = record
            progress(done + count, len(wanted))
    return [(prompt, found[key]) for key, prompt in wanted.items()]


def _key(prompt: CodePrompt, sample: int) -> tuple[str, str, int, str]:
    """(part, name, sample, 8 hex digits of what is asked)."""
    asked = hashlib.sha256(repr(prompt.messages).encode()).hexdigest()[:8]
    return prompt.part, prompt.name, sample, asked


def _key_id(key: tuple) -> int:
    """A number below 2³¹ that stands for this answer in fold_in."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4]) >> 1
