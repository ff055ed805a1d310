"""Stage 3, principle engraving: the base model learns to answer as it did under the principles,
without seeing principles, examples or thoughts.

It is plain fine-tuning (applications/finetuning.py) on stage 2's rows, in a work directory of
its own; what the stage's settings change of the config is here.
"""

import math
from dataclasses import replace
from pathlib import Path

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.data.sources import load_examples
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.errors import UserError
from emergent_alignment.runs.from_config import Setup, conscience_settings
from emergent_alignment.runs.workdir import read_run
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.self_align.stages import StageFolder, StageResult, StageRun
from emergent_alignment.settings import changed, check_settings
from emergent_alignment.training.metrics import metrics_by_step

FILES = ()
_ANSWERS = 2  # the stage whose rows are learnt
COLUMNS = "answer=response"


def check(config: SelfAlignConfig) -> None:
    """Raise UserError for settings that cannot be meant."""
    settings = config.self_align.engraving
    if settings.epochs <= 0 and settings.steps <= 0:
        raise UserError(
            "config.self_align.engraving: neither epochs nor steps is more than 0; set one"
        )
    check_settings(training_config(config, "data.jsonl", num_rows=1))
    if settings.conscience:
        conscience_settings(config)


def run(stage: StageRun) -> StageResult:
    """Fine-tune the base model on (instruction, answer), going on where a kill left it."""
    data = stage.inputs[_ANSWERS].data
    examples = load_examples(str(data), columns=COLUMNS)
    config = training_config(stage.config, str(data), len(examples))
    finetune(config, stage.folder.run, setup=replace(stage.setup, config=config), name="engraving")
    limits = config.data.max_prompt_tokens, config.data.max_response_tokens
    rows = [tokenize(example, stage.setup.chat, *limits) for example in examples]
    losses = _task_losses(stage.folder.run)
    return StageResult(
        {
            "made": len(rows),
            "kept": len(rows),
            "dropped": {},
            "ended": sum(example.ended for example in examples),
            "cut": sum(row.target_cut or row.prompt_cut for row in rows),
            "answer_tokens": sum(len(row.target) for row in rows),
            "steps": config.training.steps,
            "first_task_loss": losses[0],
            "last_task_loss": losses[1],
        }
    )


def training_config(config: SelfAlignConfig, data: str, num_rows: int) -> SelfAlignConfig:
    """The config of the run: the main one, with what config.self_align.engraving says, on the
    rows of `data`."""
    settings = config.self_align.engraving
    batch_size = settings.batch_size
    steps = settings.steps or math.ceil(settings.epochs * num_rows / batch_size)
    return changed(
        config,
        {
            "application": "finetuning",
            "data.train": data,
            "data.train_split": "train",
            "data.columns": COLUMNS,
            "data.limit": 0,
            "data.every_turn": False,
            "conscience.enabled": settings.conscience,
            "lora.rank": settings.lora_rank,
            "optimizer.learning_rate": settings.learning_rate,
            "optimizer.schedule": settings.schedule,
            "training.steps": steps,
            "training.batch_size": batch_size,
        },
    )


def engraved(folder: StageFolder, base: Setup) -> Setup:
    """The model that a stage has trained in its `run`, adapters merged into the weights, beside
    the base's chat and mesh: what later stages start from."""
    trained = read_run(folder.run, type(base.config), base=base).trained
    return replace(base, model=trained.model.merged())


def _task_losses(workdir: Path) -> tuple[float, float]:
    """Mean task loss, nats a token, over the first and over the last tenth of the steps."""
    losses = [line.get("task_loss") for line in metrics_by_step(workdir)]
    losses = [loss for loss in losses if loss is not None]
    size = max(len(losses) // 10, 1)
    return tuple(sum(part) / max(len(part), 1) for part in (losses[:size], losses[-size:]))
