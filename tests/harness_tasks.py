"""Task files for lm-evaluation-harness, small and local."""

import functools
import json
from pathlib import Path

from lm_eval.tasks import TaskManager

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "no"]
doc_to_target: answer
unsafe_code: {unsafe}
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def write_choice_task(folder: Path, name: str, *, unsafe: bool = False, data: bool = True) -> Path:
    """Put a task of six questions into `folder`, with its data or without."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / f"{name}.jsonl"
    if data:
        questions = [{"question": f"Is {n} even?", "answer": n % 2} for n in range(6)]
        rows.write_text("".join(json.dumps(row) + "\n" for row in questions))
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, rows=rows, unsafe=unsafe))
    return folder


def only_our_tasks(monkeypatch, cache: Path) -> None:
    """Do not read the harness's own thousands of task files, and keep data sets in `cache`."""
    ours = functools.partial(TaskManager, include_defaults=False)
    monkeypatch.setattr("lm_eval.tasks.TaskManager", ours)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
