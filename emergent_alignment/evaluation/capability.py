"""Tasks of lm-evaluation-harness on our model: found and loaded first, then run, then added up.

The harness is in the extra `eval` and is imported only where it is used.
"""

import difflib
import importlib.util
import math
from pathlib import Path
from typing import Any

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.intervals import Interval, error_interval, share_interval
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.json_lines import write_json_lines
from emergent_alignment.training.state import fingerprint

CAPABILITY_FOLDER = "capability"
CAPABILITY_RESULT = "result.json"


def load_harness_tasks(config: EvaluationConfig) -> list[Any]:
    """The harness's tasks and groups that config.capability names, with their data.

    Raises UserError where the harness is missing, no task is named, a task is unknown, would run
    code that a model wrote, or its data cannot be had.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "evaluate capability needs lm-evaluation-harness, which is not installed: "
            "pip install 'emergent-alignment[eval]'"
        )
    from lm_eval.tasks import TaskManager

    settings = config.capability
    names = [name.strip() for name in settings.tasks.split(",") if name.strip()]
    if not names:
        raise UserError(
            "config.capability.tasks: name one or more tasks of lm-evaluation-harness, "
            "separated by commas, such as arc_easy,hellaswag"
        )
    if settings.include and not Path(settings.include).is_dir():
        raise UserError(f"config.capability.include: {settings.include}: no such folder")
    manager = TaskManager(include_path=settings.include or None)
    for name in names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "see `lm-eval ls tasks`"
            raise UserError(
                f"config.capability.tasks: {name}: there is no such task in lm-evaluation-harness"
                f"{f' or in {settings.include}' if settings.include else ''}; {hint}"
            )
    return [item for name in names for item in _loaded(manager, name)]


def _loaded(manager: Any, name: str) -> list[Any]:
    """The task, the group, or the tasks of a tag."""
    try:
        loaded = manager.load([name])
    except ImportError as error:
        raise UserError(
            f"config.capability.tasks: {name}: needs a package that is not installed "
            f"({_in_one_line(error)}); install it, or leave the task out"
        ) from None
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        # `datasets` and the hub say "not here" in all of these ways.
        where = _data_source(manager, name)
        raise UserError(
            f"config.capability.tasks: {name}: its data{where} cannot be had here "
            f"({_in_one_line(error)}); run the command once where there is a network and bring "
            "that machine's HF_HOME along, leave the task out, or name a task file of your own "
            "with config.capability.include"
        ) from None
    for task_name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise UserError(
                f"config.capability.tasks: {task_name}: runs code that the model writes, without "
                "a sandbox; `evaluate code` runs it in one"
            )
    below = {child for group in loaded["groups"].values() for child in group.child_names}
    return [
        item
        for item_name, item in {**loaded["groups"], **loaded["tasks"]}.items()
        if item_name not in below
    ]


def _data_source(manager: Any, name: str) -> str:
    """Where the task's file says that its data is, in brackets; "" where it does not."""
    entry = manager.task_index[name]
    fields = entry.cfg or {}
    said = [str(fields[field]) for field in ("dataset_path", "dataset_name") if fields.get(field)]
    return f" ({', '.join(said)})" if said else ""


def evaluate_capability(
    config: EvaluationConfig, under_test: Setup, tasks: list[Any], directory: Path, *, arm: str
) -> tuple[dict, Path]:
    """Run tasks from `load_harness_tasks`; returns the result and its file, in
    `directory`/capability, beside samples-TASK.jsonl with every prompt and answer.

    Raises UserError where a task asks the model for something that it cannot do.
    """
    from lm_eval.evaluator import simple_evaluate

    from emergent_alignment.evaluation.harness import HarnessModel

    settings, model = config.capability, under_test.model
    with in_force(under_test.mesh):
        harness_model = HarnessModel(
            model,
            under_test.chat,
            batch_size=settings.batch_size,
            seed=config.seed,
            label=arm,
        )
        measured = simple_evaluate(
            harness_model,
            tasks=tasks,
            num_fewshot=settings.fewshot if settings.fewshot >= 0 else None,
            limit=settings.limit or None,
            apply_chat_template=settings.chat_template,
            bootstrap_iters=1000,
        )
    result = {
        "arm": arm,
        "model": model.source,
        "parameters": fingerprint(model.params),
        "adapters": fingerprint(model.adapters) if model.adapters is not None else None,
        "harness": measured["lm_eval_version"],
        "chat_template": settings.chat_template,
        "limit": settings.limit,
        "tasks": {name: _task_result(measured, name) for name in measured["results"]},
    }
    folder = directory / CAPABILITY_FOLDER
    for name, samples in measured["samples"].items():
        write_json_lines(folder / f"samples-{name}.jsonl", samples, ensure_ascii=False, default=str)
    write_json(folder / CAPABILITY_RESULT, result)
    return result, folder / CAPABILITY_RESULT


def _task_result(measured: dict, name: str) -> dict:
    """One task or group: {"version", "fewshot", "metrics": {name: interval}}."""
    metrics, samples = {}, measured["samples"].get(name, [])
    figures = measured["results"][name]
    for key, value in figures.items():
        metric, _, rule = key.partition(",")
        if not rule or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        single = [row[metric] for row in samples if row["filter"] == rule and metric in row]
        error = figures.get(f"{metric}_stderr,{rule}")
        label = metric if rule == "none" else f"{metric} ({rule})"
        metrics[label] = _interval(float(value), error, single, figures["sample_len"]).to_json()
    return {
        "version": measured["versions"].get(name),
        "fewshot": measured["n-shot"].get(name),
        "metrics": metrics,
    }


def _interval(value: float, error: float | str | None, single: list, n: int) -> Interval:
    """Wilson's interval where the metric is a share of documents; else by the harness's own
    standard error; else, where it has none, an interval of no width."""
    shares = bool(single) and all(item in (0, 1) for item in single)
    if shares and math.isclose(sum(single) / len(single), value):
        return share_interval(sum(single), len(single))
    known = isinstance(error, float) and math.isfinite(error)
    return error_interval(value, error if known else 0.0, n)


def _in_one_line(error: Exception) -> str:
    """The first line of what an error says, cut to a length that a terminal shows."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
