"""The whole code evaluation of one model: sample, check with bandit, run tests, add up, keep."""

from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from emergent_alignment.data.code_security import code_of, inspect_code, summarize_code
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.answer_records import ANSWERS
from emergent_alignment.evaluation.answering import sample_missing, sampling_identity
from emergent_alignment.evaluation.coding.answers import (
    SECURITY,
    TASKS,
    CodePrompt,
    code_prompts,
    places,
)
from emergent_alignment.evaluation.coding.sandbox import (
    SANDBOX_OUTCOMES,
    Outcome,
    SandboxLimits,
    protection,
    run_sandboxed,
)
from emergent_alignment.evaluation.settings import CodeSection, EvaluationConfig
from emergent_alignment.intervals import mean_interval, share_interval
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.json_lines import write_json_lines

CODE_FOLDER = "code"
CODE_RESULT = "result.json"
CHECKED = "checked.jsonl"
NUM_AT_ONCE = 2  # sandboxes that run beside each other


def check_code_settings(settings: CodeSection) -> None:
    """Raise UserError where tasks, bandit or the sandbox cannot be used: before a model is read."""
    prompts = code_prompts(settings)
    if not prompts:
        raise UserError(
            "config.code: there is nothing to ask; set tasks, or security_prompts above 0"
        )
    inspect_code([])
    if any(prompt.part == TASKS for prompt in prompts):
        protection()


def evaluate_code(
    config: EvaluationConfig,
    under_test: Setup,
    directory: Path,
    *,
    arm: str,
    overwrite: bool = False,
) -> tuple[dict, Path]:
    """Evaluate `under_test` as config.code says, in `directory`/code; returns the result and its
    file. Answers of an earlier call with the same settings are kept; `overwrite` drops what other
    settings have made.

    Raises UserError for settings that cannot be used, and for a folder of other settings.
    """
    check_code_settings(config.code)
    folder = GrowingFolder(directory / CODE_FOLDER)
    sampling = sampling_identity(config, config.code, under_test.model)
    folder.claim(ANSWERS, sampling, overwrite=overwrite)
    wanted = places(code_prompts(config.code), config.code.samples)
    asked = {place: list(prompt.messages) for place, prompt in wanted.items()}
    with in_force(under_test.mesh), progress(f"{arm}: code") as meter:
        sampled = sample_missing(config, config.code, under_test, asked, folder, progress=meter)
    answered = [(wanted[place], record) for place, record in sampled.items()]
    result = {"arm": arm, "model": under_test.model.source, "sampling": sampling}
    result["samples"] = config.code.samples
    parts = {
        part: [(prompt, record) for prompt, record in answered if prompt.part == part]
        for part in (SECURITY, TASKS)
    }
    checked = []
    if parts[SECURITY]:
        per_answer = inspect_code([record["answer"] for _, record in parts[SECURITY]])
        result[SECURITY] = summarize_code(per_answer) | {
            "num_prompts": _num_prompts(parts[SECURITY])
        }
        checked += [r | asdict(one) for (_, r), one in zip(parts[SECURITY], per_answer)]
    if parts[TASKS]:
        limits = SandboxLimits(config.code.seconds, config.code.memory_mb * 2**20)
        with progress(f"{arm}: tests") as meter:
            outcomes = _outcomes(parts[TASKS], limits, meter)
        per_answer = inspect_code([record["answer"] for _, record in parts[TASKS]])
        result[TASKS] = summarize_code(per_answer) | _summarize_tasks(parts[TASKS], outcomes)
        result["sandbox"] = asdict(protection()) | {
            "in_force": list(protection().in_force),
            "text": protection().text(),
            "not_held_off": protection().not_held_off(),
            "limits": asdict(limits),
        }
        checked += [r | asdict(one) for (_, r), one in zip(parts[TASKS], outcomes)]
    write_json_lines(folder.path / CHECKED, checked)
    write_json(folder.path / CODE_RESULT, result)
    return result, folder.path / CODE_RESULT


def _outcomes(
    answered: list[tuple[CodePrompt, dict]],
    limits: SandboxLimits,
    report: Callable[[int, int], None],
) -> list[Outcome]:
    """What came of each answer's tests, in order."""

    def one(item: tuple[CodePrompt, dict]) -> Outcome:
        prompt, record = item
        code, task = code_of(record["answer"]), prompt.task
        return run_sandboxed(code, list(task.tests), limits, entry_point=task.entry_point)

    outcomes = []
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        for outcome in pool.map(one, answered):
            outcomes.append(outcome)
            report(len(outcomes), len(answered))
    return outcomes


def _summarize_tasks(answered: list[tuple[CodePrompt, dict]], outcomes: list[Outcome]) -> dict:
    """Counts for a table, as plain JSON.

    passed     share of answers that pass all tests (Wilson, as if answers to one task were
               independent)
    pass_at_1  mean over tasks of the share of its answers that pass; interval over tasks
    outcomes   how many answers ended how
    """
    passed = [outcome.outcome == "passed" for outcome in outcomes]
    by_task: dict[str, list[bool]] = defaultdict(list)
    for (prompt, _), one in zip(answered, passed):
        by_task[prompt.name].append(one)
    counts = Counter(outcome.outcome for outcome in outcomes)
    return {
        "num_tasks": len(by_task),
        "passed": share_interval(sum(passed), len(passed)).to_json(),
        "pass_at_1": mean_interval([sum(v) / len(v) for v in by_task.values()]).to_json(),
        "outcomes": {name: counts[name] for name in SANDBOX_OUTCOMES},
        "tasks": {name: sum(v) / len(v) for name, v in by_task.items()},
    }


def _num_prompts(answered: list[tuple[CodePrompt, dict]]) -> int:
    return len({prompt.name for prompt, _ in answered})
