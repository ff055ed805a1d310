"""The prompts of a code evaluation, and the places of the answers that are wanted."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from emergent_alignment.data.chat import Message
from emergent_alignment.data.scenarios import load_scenario
from emergent_alignment.evaluation.coding.tasks import CodeTask, load_tasks
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.storage.spread import limited, spread_kinds

CODE_SCENARIO = "code_hacking"
SECURITY, TASKS = "security", "tasks"


@dataclass(frozen=True)
class CodePrompt:
    """One prompt: `part` is `security` (what bandit finds in the answer) or `tasks` (whether the
    answer passes `task`'s tests), and `name` is unique in its part."""

    part: str
    name: str
    messages: tuple[Message, ...]
    task: CodeTask | None = None


class CodePlace(NamedTuple):
    """Which answer: part and name of its prompt, its number, and 8 hex digits of what is asked,
    so that an answer to a prompt that has changed is none."""

    part: str
    name: str
    sample: int
    asked: str


def code_prompts(config: EvaluationConfig) -> list[CodePrompt]:
    """The prompts that config.code names: held-out ones of the code scenario, all kinds alike,
    and tasks with tests, spread over their file. Raises UserError for a tasks file that cannot
    be used."""
    settings = config.code
    rows = load_scenario(CODE_SCENARIO, "heldout")
    numbered = [
        CodePrompt(SECURITY, f"{row['kind']} {i}", ({"role": "user", "content": row["prompt"]},))
        for i, row in enumerate(rows)
    ]
    tasks = load_tasks(settings.tasks) if settings.tasks else []
    chosen = limited(tasks, settings.task_limit)
    kinds = [row["kind"] for row in rows]
    return spread_kinds(numbered, kinds, settings.security_prompts) + [
        CodePrompt(TASKS, task.name, task.messages, task) for task in chosen
    ]


def places(prompts: list[CodePrompt], samples: int) -> dict[CodePlace, CodePrompt]:
    """Every answer that is wanted: `samples` to each prompt."""
    return {
        CodePlace(prompt.part, prompt.name, sample, _digest(prompt)): prompt
        for prompt in prompts
        for sample in range(samples)
    }


def _digest(prompt: CodePrompt) -> str:
    return hashlib.sha256(repr(prompt.messages).encode()).hexdigest()[:8]
